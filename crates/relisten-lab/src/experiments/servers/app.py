def app(environment, start):
    start("200 OK", [("Content-Length", "3"), ("Content-Type", "text/plain")])
    return [b"ok\n"]
