"""The last service of the fault lab's chain: a pool of threads, one for each connection, the upstream
SDK, SQLite on a real disk. What a request does is in its query: store=cpu:5,db:1. Verbs:
cpu, sleep (milliseconds), lock (milliseconds in the one lock that all requests share), db
(transactions, each with its fsync), archive (records, each with its fsync, in a folder that may be
another disk), touch (MiB of memory written), child (a process that writes so many MiB, as a
converter would), retry (system calls that a filter refuses, with a pause after each), deaf
(milliseconds in which no connection is accepted), rates (asks the service of the rates, where there
is one).

Arguments: the address to listen on, the folder of the database, and the address of the rates."""

import http.client
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlparse

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from work import burn

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=200))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("store")
propagator = TraceContextTextMapPropagator()
lock = threading.Lock()
deaf_until = 0.0
local = threading.local()
database = os.path.join(sys.argv[2], "orders.db")


def connection():
    if not hasattr(local, "connection"):
        local.connection = sqlite3.connect(database, timeout=20, isolation_level=None)
        local.connection.execute("PRAGMA synchronous = FULL")
    return local.connection


def write_orders(transactions):
    for _ in range(transactions):
        connection().execute("INSERT INTO orders(paid, note) VALUES (?, ?)", (time.time(), "x" * 200))
        connection().execute("DELETE FROM orders WHERE id < (SELECT MAX(id) FROM orders) - 500")


def archive(records):
    """To a disk of its own, each with its flush. Each thread has its own file, in which what is
    oldest is written over."""
    if not hasattr(local, "archive"):
        name = os.path.join(sys.argv[2], "archive", str(threading.get_native_id()))
        local.archive, local.archived = os.open(name, os.O_CREAT | os.O_WRONLY), 0
    for _ in range(records):
        os.pwrite(local.archive, b"x" * 4096, local.archived % 256 * 4096)
        os.fsync(local.archive)
        local.archived += 1


def touch(mebibytes):
    page = b"x" * 4096
    memory = bytearray(mebibytes << 20)
    for at in range(0, len(memory), 4096):
        memory[at] = page[0]


def child(mebibytes):
    # If somebody has to go, then this one.
    program = (
        "open('/proc/self/oom_score_adj', 'w').write('1000')\n"
        f"memory = bytearray({mebibytes} << 20)\n"
        "for at in range(0, len(memory), 4096): memory[at] = 1"
    )
    subprocess.run([sys.executable, "-S", "-c", program], check=False)


def refused(times):
    for _ in range(times):
        try:
            os.chown("/tmp", 0, 0)
        except OSError:
            time.sleep(0.003)


def rates(query):
    """With the same query, which says what is to be done there."""
    attributes = {"http.request.method": "GET", "server.address": sys.argv[3].rsplit(":", 1)[0]}
    with tracer.start_as_current_span("GET /rates", kind=SpanKind.CLIENT, attributes=attributes):
        headers = {}
        propagator.inject(headers)
        there = http.client.HTTPConnection(sys.argv[3], timeout=20)
        there.request("GET", f"/rates?{query}", headers=headers)
        there.getresponse().read()
        there.close()


def perform(steps, query):
    global deaf_until
    for step in filter(None, steps.split(",")):
        verb, _, amount = step.partition(":")
        amount = int(amount)
        if verb == "cpu":
            burn(amount)
        elif verb == "sleep":
            time.sleep(amount / 1000)
        elif verb == "lock":
            with lock:
                time.sleep(amount / 1000)
        elif verb == "db":
            write_orders(amount)
        elif verb == "archive":
            archive(amount)
        elif verb == "touch":
            touch(amount)
        elif verb == "child":
            child(amount)
        elif verb == "retry":
            refused(amount)
        elif verb == "deaf":
            deaf_until = time.monotonic() + amount / 1000
        elif verb == "rates" and len(sys.argv) > 3:
            rates(query)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        url = urlparse(self.path)
        query = parse_qs(url.query)
        attributes = {"http.request.method": "GET", "http.route": url.path}
        caller = propagator.extract(dict(self.headers))
        with tracer.start_as_current_span(f"GET {url.path}", context=caller, kind=SpanKind.SERVER, attributes=attributes) as span:
            perform(query.get("store", [""])[0], url.query)
            body = b"x" * int(query.get("size", ["100"])[0])
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            span.set_attribute("http.response.status_code", 200)

    def log_message(self, *_):
        pass


class Server(HTTPServer):
    request_queue_size = 2
    # Threads that stay: what the kernel counts of a thread goes when the thread goes.
    pool = ThreadPoolExecutor(max_workers=16)

    def process_request(self, request, client_address):
        self.pool.submit(self.serve, request, client_address)

    def serve(self, request, client_address):
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass
        finally:
            self.shutdown_request(request)

    def get_request(self):
        time.sleep(max(0.0, deaf_until - time.monotonic()))
        return super().get_request()


def stop(*_):
    provider.shutdown()
    sys.exit(0)


with sqlite3.connect(database) as first:
    first.execute("CREATE TABLE IF NOT EXISTS orders(id INTEGER PRIMARY KEY, paid REAL, note TEXT)")
first.close()
host, port = sys.argv[1].rsplit(":", 1)
server = Server((host, int(port)), Handler)
signal.signal(signal.SIGTERM, stop)
print("listening {}:{}".format(*server.server_address), flush=True)
server.serve_forever()
