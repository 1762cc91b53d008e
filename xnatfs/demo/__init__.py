"""An embedded XNAT stand-in with sample data, for trying xnatfs and for its tests.

Imports nothing of the rest of xnatfs, so that what the client believes about XNAT can never leak into what
the server does.

From the outside in:

- `server` runs it (`DemoServer` in a thread, `serve` in the foreground); `connection` is uvicorn's protocol
  with a stock Tomcat's habits;
- `app` is the ASGI application: what is refused before XNAT sees it, who asks (`auth`), which faults apply
  (`faults`), error `pages`;
- `plain` is the files as any web server shows them, for measuring others beside xnatfs;
- `delivery` sends a `reply`, paced, cut or stalled; `requestlog` remembers it; `control` is /demo: switches,
  log, changes of the data;
- `routes` finds the handler: `listings` (by `columns`, `roots`, `sessions` and `fields`, written by
  `tables`), `addresses`, `access` and `placed_resources` (what a URL names, who may see it, which resources
  it has), `resources`, `files` (with `ranges`), `bulk`, `items`, `search`, `accounts`; `uploads` and `edits`
  write; `xapi` and `schemas` for /xapi;
- `model` holds the data (`content`: bytes), `kinds` knows its types, `changes` what a write moves, `data`
  builds it; `database` says what is answered while the database fails.

Everything runs on one event loop in one process. Measured on loopback, two processors shared with the client,
Python 3.11 (uvloop, and plain asyncio about the same):

- one streamed file of 1 GiB: 1.5 to 2.2 GB/s; GETs of 150 kB: 2,200 a second on one connection, 2,700 on two;
- a zip of 250 x 150 kB: 380 to 560 MB/s;
- the files of a session with 252: 1.4 ms (55 ms the first time: MD5);
- 1,000 sessions x 8 scans x 2 resources in one listing (16,000 rows, 6 MB): 0.1 s.
"""
