"""A real systemd in a throw-away overlay of this machine's root; the command line is `scripts/systemd-lab`.

It needs nothing of systemd on the machine itself, no machinectl, no loop device and no image: the lower layer is `/`,
and every write goes to a tmpfs. How it leaves nothing behind:

- Every mount lives in a private mount namespace, which the kernel drops with the last process of the lab.
- Every process of a lab lives in one control group, `<hierarchy>/systemd-lab/<name>`. `down` kills that group, neither
  process ids nor names.
- The state of a lab is one directory, `<dir>/<name>`. A lab that a killed `up` left is removed by the next `up` or
  `down` of that name.

| module | what |
|---|---|
| `linux` | namespaces, parent death signals and process start times |
| `cgroups` | the control groups of a lab: made, joined, killed, removed |
| `state` | the directory, the lock and the state file of a lab |
| `overlay` | the root file system: what the upper layer hides and adds |
| `container` | `up`: the keeper process and systemd-nspawn |
| `user_mode_linux` | `uml`: one command under systemd on a kernel of its own |
| `execute` | `exec`: one command inside a running lab |
| `lifecycle` | `down`, `reboot`, `list`, `root`, `pid`, `console` |
| `__main__` | the command line |
"""
