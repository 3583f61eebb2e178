"""The rates that the store asks for on the slow path of the fault lab's chain: a thread for each
connection, the upstream SDK. What a request does is in its query: rates=cpu:5 burns milliseconds of
CPU time.

Argument: the address to listen on."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
tracer = trace.get_tracer("rates")
propagator = TraceContextTextMapPropagator()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urlparse(self.path)
        steps = parse_qs(url.query).get("rates", [""])[0]
        caller = propagator.extract(dict(self.headers))
        with tracer.start_as_current_span(f"GET {url.path}", context=caller, kind=SpanKind.SERVER):
            for step in filter(None, steps.split(",")):
                verb, _, amount = step.partition(":")
                if verb == "cpu":
                    burn(int(amount))
            body = b"1.08"
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_):
        pass


host, port = sys.argv[1].rsplit(":", 1)
server = ThreadingHTTPServer((host, int(port)), Handler)
print("listening {}:{}".format(*server.server_address), flush=True)
server.serve_forever()
