"""The upstream OpenTelemetry SDK as a source of logs, and its own generated service as where
they go: `receive` prints each record that comes, `send ENDPOINT LINE...` logs the lines
through `logging`, one within a span. The service's name comes from the OTEL_* environment."""

import json
import logging
import sys
from concurrent import futures

import grpc
from google.protobuf.json_format import MessageToDict
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider


class Receiver(logs_service_pb2_grpc.LogsServiceServicer):
    def Export(self, request, context):
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    print("record " + json.dumps(MessageToDict(record)), flush=True)
        return logs_service_pb2.ExportLogsServiceResponse()


def receive():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Receiver(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening 127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


def send(endpoint, lines):
    provider = LoggerProvider()
    exporter = OTLPLogExporter(endpoint=endpoint, insecure=True)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    log = logging.getLogger("shop")
    log.setLevel(logging.INFO)
    log.addHandler(LoggingHandler(logger_provider=provider))
    tracer = TracerProvider().get_tracer("app")
    with trace.use_span(tracer.start_span("checkout")) as span:
        log.error(lines[0], extra={"attempt": 3})
        print(f"trace {span.get_span_context().trace_id:032x}", flush=True)
    for line in lines[1:]:
        log.info(line)
    provider.shutdown()


if sys.argv[1] == "receive":
    receive()
else:
    send(sys.argv[2], sys.argv[3:])
