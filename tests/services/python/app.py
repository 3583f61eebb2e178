"""A small web service with the upstream OpenTelemetry SDK (gRPC exporter), as its
documentation sets it up. GET /work?cpu_ms=N uses N ms of CPU time, whatever the wall
clock says. The endpoint and the service's name come from the OTEL_* environment."""

import json
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlparse

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

from work import burn

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=200))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("app")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urlparse(self.path)
        if url.path != "/work":
            self.send_error(404)
            return
        cpu_ms = int(parse_qs(url.query).get("cpu_ms", ["20"])[0])
        own, peer = self.connection.getsockname(), self.client_address
        attributes = {
            "http.request.method": "GET", "http.route": "/work", "url.path": "/work",
            "network.local.address": own[0], "network.local.port": own[1],
            "network.peer.address": peer[0], "network.peer.port": peer[1],
        }
        with tracer.start_as_current_span("GET /work", kind=SpanKind.SERVER, attributes=attributes) as span:
            with tracer.start_as_current_span("lookup"):
                time.sleep(0.002)
            total = burn(cpu_ms)
            context = span.get_span_context()
        body = json.dumps({"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}", "total": total})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


def stop(*_):
    provider.shutdown()
    sys.exit(0)


host, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:0").rsplit(":", 1)
server = HTTPServer((host, int(port)), Handler)
signal.signal(signal.SIGTERM, stop)
print("listening {}:{}".format(*server.server_address), flush=True)
server.serve_forever()
