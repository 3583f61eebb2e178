// A small web service with the upstream OpenTelemetry SDK (HTTP exporter, JSON), as its
// documentation sets it up. GET /work?cpu_ms=N uses N ms of CPU time, whatever the wall
// clock says. The endpoint and the service's name come from the OTEL_* environment.
import { createServer } from 'node:http';
import { SpanKind, context, trace } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { NodeSDK, tracing } from '@opentelemetry/sdk-node';

const sdk = new NodeSDK({
  spanProcessors: [
    new tracing.BatchSpanProcessor(new OTLPTraceExporter(), { scheduledDelayMillis: 200 }),
  ],
});
sdk.start();
const tracer = trace.getTracer('app');

function burn(cpuMs) {
  const began = process.cpuUsage();
  let total = 0;
  for (;;) {
    for (let number = 0; number < 20000; number++) total = (Math.imul(total, 31) + number) >>> 0;
    const used = process.cpuUsage(began);
    if (used.user + used.system >= cpuMs * 1000) return total;
  }
}

async function work(url) {
  const attributes = { 'http.request.method': 'GET', 'http.route': '/work', 'url.path': '/work' };
  const span = tracer.startSpan('GET /work', { kind: SpanKind.SERVER, attributes });
  const lookup = tracer.startSpan('lookup', {}, trace.setSpan(context.active(), span));
  await new Promise((done) => setTimeout(done, 2));
  lookup.end();
  const total = burn(Number(url.searchParams.get('cpu_ms') ?? 20));
  span.end();
  const { traceId, spanId } = span.spanContext();
  return { trace_id: traceId, span_id: spanId, total };
}

const server = createServer(async (request, response) => {
  const url = new URL(request.url, 'http://localhost');
  if (url.pathname !== '/work') return response.writeHead(404).end();
  const body = JSON.stringify(await work(url));
  response.writeHead(200, { 'content-type': 'application/json' }).end(body);
});
const [host, port] = (process.argv[2] ?? '127.0.0.1:0').split(':');
server.listen(Number(port), host, () => {
  const { address, port: picked } = server.address();
  console.log(`listening ${address}:${picked}`);
});
process.on('SIGTERM', () => sdk.shutdown().finally(() => process.exit(0)));
