"""The review app: a local web app in which people decide about pictures. `imagelake review` starts it.

It reads one release of a lake and writes verdicts only. Images have numbers, their positions in the table, so that what
is held in memory is small: `images.py` has the few facts of all images that filters need, and reads the rest of single
images from the files. `queues.py` computes what to ask as arrays of numbers, `decisions.py` knows what is decided and
records verdicts, `precision.py` proposes a threshold, and `links.py` finds what is linked with one image. `review.py`
describes the pages, `app.py` answers with them, `pages.py` writes them, `security.py` refuses requests of other pages,
and `server.py` runs it all on 127.0.0.1.
"""
