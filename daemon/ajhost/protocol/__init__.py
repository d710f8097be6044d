"""What goes over the wire and into it: frames, headers, tasks, results, errors, signatures. No clock, no I/O."""
