"""How fast xnatfs is beside curl, rclone, pyxnat and xnatpy: the package behind `scripts/bench`.

- `__main__` is the command; `host` runs processes and gives back all that was taken; `stage` has the stand-in
  and the mounts of one work;
- `works` lists what is measured: `copying`, `large`, `listing`, `crowd` hold one work a class; `readers` is
  what they run in processes of their own; `capability` measures the stand-in alone;
- `results` keeps samples, medians and targets; `report` prints them, as text, JSON, markdown and a picture.

A further table (issue by issue) is one more module of works, added to `works.WORKS`.
"""
