"""Python's http.server with its defaults: threads, a backlog of 5, and SIGTERM is death.

usage: python.py HOST PORT [--http11] [--defer SECONDS] [--mode FILE] [--health FILE] [--late PORT SECONDS]
                 [--mptcp]

FILE says, at each start, what this one does: "ok", "exit N" (at once), "never" (stays, listens never),
"delay SECONDS" (listens late), "port N" (listens elsewhere), "half" (listens, accepts never).

The FILE of --health says, at each request for /health, who is ill and how: "503 PID", "hang PID", "503 all"; "well
nobody", or no such file: everybody is well. /hold answers when everybody is. With --late a second port is opened so many seconds after the first.
With --mptcp it listens with MPTCP, and notes in the file `protocols` what its socket is before and after `bind`.
"""

import http.server
import os
import socket
import sys
import threading
import time
import urllib.parse

IPPROTO_MPTCP = 262
SO_PROTOCOL = 38


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/slow":
            time.sleep(int(query["ms"]) / 1000)
        if url.path == "/download":
            return self.download(int(float(query["s"]) * 10))
        if url.path == "/die":
            os._exit(9)
        while url.path == "/hold" and illness()[1] != "nobody":
            time.sleep(0.05)
        if url.path == "/health":
            how, who = illness()
            if who in ("all", str(os.getpid())):
                if how == "hang":
                    time.sleep(3600)
                return self.send_error(int(how))
        body = b"pid=%d\n" % os.getpid()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def download(self, tenths):
        part = b"x" * 1000
        self.send_response(200)
        self.send_header("Content-Length", str(tenths * len(part)))
        self.end_headers()
        for _ in range(tenths):
            self.wfile.write(part)
            self.wfile.flush()
            time.sleep(0.1)

    def log_message(self, *_):
        pass


def illness():
    try:
        with open(sys.argv[sys.argv.index("--health") + 1]) as file:
            return file.read().split()
    except FileNotFoundError:
        return "well", "nobody"


class Server(http.server.ThreadingHTTPServer):
    # The address family follows the address.
    address_family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET

    def server_bind(self):
        mptcp = "--mptcp" in sys.argv
        if mptcp:
            self.socket.close()
            self.socket = socket.socket(self.address_family, self.socket_type, IPPROTO_MPTCP)
            self.note_protocol("before bind")
        super().server_bind()
        if mptcp:
            self.note_protocol("after bind")

    def note_protocol(self, when):
        with open("protocols", "a") as file:
            file.write("%d %s\n" % (self.socket.getsockopt(socket.SOL_SOCKET, SO_PROTOCOL), when))


def late(host, port, seconds):
    time.sleep(seconds)
    Server((host, port), Handler).serve_forever()


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    arguments = sys.argv[3:]
    if "--http11" in arguments:
        Handler.protocol_version = "HTTP/1.1"
    mode = ["ok"]
    if "--mode" in arguments:
        with open(arguments[arguments.index("--mode") + 1]) as file:
            mode = file.read().split()
    if mode[0] == "exit":
        print("this one exits at once, as it was told", flush=True)
        sys.exit(int(mode[1]))
    if mode[0] == "never":
        time.sleep(3600)
    if mode[0] == "delay":
        time.sleep(float(mode[1]))
    if mode[0] == "port":
        port = int(mode[1])
    server = Server((host, port), Handler)
    if "--defer" in arguments:
        seconds = int(arguments[arguments.index("--defer") + 1])
        server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, seconds)
    if mode[0] == "half":
        time.sleep(3600)
    if "--late" in arguments:
        at = arguments.index("--late")
        threading.Thread(target=late, args=(host, int(arguments[at + 1]), float(arguments[at + 2]))).start()
    server.serve_forever()


main()
