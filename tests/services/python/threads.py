"""A web service with a thread for each connection and the upstream OpenTelemetry SDK.
GET /mixed?cpu_ms=N&sleep_ms=M computes, sleeps, computes again; the answer and the span's
attribute `test.tid` name the thread that did it, as the kernel counts threads."""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

from work import burn

provider = TracerProvider()
provider.add_span_processor(
    BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=200, max_queue_size=8192)
)
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("threads")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        query = parse_qs(urlparse(self.path).query)
        cpu_ms = float(query.get("cpu_ms", ["1"])[0])
        sleep_ms = float(query.get("sleep_ms", ["0"])[0])
        tid = threading.get_native_id()
        with tracer.start_as_current_span("GET /mixed", kind=SpanKind.SERVER) as span:
            span.set_attribute("test.tid", tid)
            burn(cpu_ms / 2)
            with tracer.start_as_current_span("part") as part:
                time.sleep(sleep_ms / 1000)
                burn(cpu_ms / 2)
        ids = {f"{s.get_span_context().span_id:016x}": tid for s in (span, part)}
        trace_id = f"{span.get_span_context().trace_id:032x}"
        body = json.dumps({"trace_id": trace_id, "tids": ids}).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        self.wfile.write(head + body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


def stop(*_):
    provider.shutdown()
    os._exit(0)


signal.signal(signal.SIGTERM, stop)
host, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:0").split(":")
server = Server((host, int(port)), Handler)
print(f"listening {host}:{server.server_address[1]}", flush=True)
server.serve_forever()
