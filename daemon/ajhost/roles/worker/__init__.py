"""The worker: joins the queue group, runs handlers, answers."""
