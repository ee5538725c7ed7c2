"""A WSGI application for gunicorn."""

import os
import time
import urllib.parse


def app(environ, start_response):
    query = dict(urllib.parse.parse_qsl(environ["QUERY_STRING"]))
    path = environ["PATH_INFO"]
    if path == "/download":
        tenths = int(float(query["s"]) * 10)
        start_response("200 OK", [("Content-Length", str(tenths * 1000))])
        return parts(tenths)
    if path == "/slow":
        time.sleep(int(query["ms"]) / 1000)
    body = b"pid=%d\n" % os.getpid()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def parts(tenths):
    for _ in range(tenths):
        yield b"x" * 1000
        time.sleep(0.1)
