"""How fast xnatfs is beside curl, rclone, pyxnat and xnatpy: the package behind `scripts/bench`.

- `__main__` is the command; `host` runs processes and gives back all that was taken; `harness` has the
  stand-in and the mounts of one workload;
- `workloads` lists what is measured: `copying`, `large`, `listing`, `crowd` hold one workload a class;
  `readers` is what they run in processes of their own; `capability` measures the stand-in alone;
- `results` keeps samples, medians and targets; `report` prints them, as text, JSON, markdown and a picture.

A further table (issue by issue) is one more module of workloads, added to `workloads.WORKLOADS`.
"""
