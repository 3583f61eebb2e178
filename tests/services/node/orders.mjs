// The middle service of the fault lab's chain: an event loop, the upstream SDK, a call of
// the next service. What a request does is in its query: orders=cpu:5,sleep:10. Verbs: cpu,
// sleep (milliseconds), peer (waits so long for an answer of a server without spans), retry
// (system calls that a filter refuses, with a pause after each).
//
// Arguments: the address to listen on, of the next service, of the server without spans.
import { chownSync } from 'node:fs';
import http from 'node:http';
import { connect } from 'node:net';
import { SpanKind, context, propagation, trace } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { NodeSDK, tracing } from '@opentelemetry/sdk-node';

const sdk = new NodeSDK({
  spanProcessors: [
    new tracing.BatchSpanProcessor(new OTLPTraceExporter(), { scheduledDelayMillis: 200 }),
  ],
});
sdk.start();
const tracer = trace.getTracer('orders');
const [listen, next, peer] = process.argv.slice(2);
const keep = new http.Agent({ keepAlive: true });
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

function burn(cpuMs) {
  const began = process.cpuUsage();
  let total = 0;
  for (;;) {
    for (let number = 0; number < 5000; number++) total = (Math.imul(total, 31) + number) >>> 0;
    const used = process.cpuUsage(began);
    if (used.user + used.system >= cpuMs * 1000) return total;
  }
}

// The server without spans answers after as many milliseconds as it is asked for.
function askPeer(ms) {
  return new Promise((done, failed) => {
    const [host, port] = peer.split(':');
    const socket = connect(Number(port), host, () => socket.write(`${ms}\n`));
    socket.on('data', () => socket.destroy()).on('close', done).on('error', failed);
  });
}

async function refused(times) {
  for (let time = 0; time < times; time++) {
    try {
      chownSync('/tmp', 0, 0);
    } catch {
      await pause(3);
    }
  }
}

async function perform(steps) {
  for (const step of steps.split(',')) {
    const [verb, amount] = step.split(':');
    if (verb === 'cpu') burn(Number(amount));
    if (verb === 'sleep') await pause(Number(amount));
    if (verb === 'peer') await askPeer(Number(amount));
    if (verb === 'retry') await refused(Number(amount));
  }
}

function get(url, headers, fresh) {
  return new Promise((done, failed) => {
    const agent = fresh ? false : keep;
    const request = http.get(url, { headers, agent }, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('end', () => done({ status: response.statusCode, body: Buffer.concat(parts) }));
      response.on('error', failed);
    });
    request.on('error', failed);
  });
}

// Where the connection is refused or broken it tries again, a little later.
async function ask(parent, target, fresh) {
  const [address, port] = next.split(':');
  const attributes = {
    'server.address': address, 'server.port': Number(port), 'http.request.method': 'GET',
  };
  const span = tracer.startSpan('GET', { kind: SpanKind.CLIENT, attributes }, parent);
  const headers = {};
  propagation.inject(trace.setSpan(context.active(), span), headers);
  try {
    for (let attempt = 1; ; attempt++) {
      try {
        return await get(`http://${next}${target}`, headers, fresh);
      } catch (error) {
        if (attempt === 20) throw error;
        await pause(10);
      }
    }
  } finally {
    span.end();
  }
}

const server = http.createServer({ keepAliveTimeout: 60000 }, async (request, response) => {
  const url = new URL(request.url, 'http://localhost');
  const attributes = { 'http.request.method': 'GET', 'http.route': url.pathname };
  const caller = propagation.extract(context.active(), request.headers);
  const span = tracer.startSpan(`GET ${url.pathname}`, { kind: SpanKind.SERVER, attributes }, caller);
  const inside = trace.setSpan(caller, span);
  try {
    await perform(url.searchParams.get('orders') ?? '');
    const answer = await ask(inside, request.url, url.searchParams.get('fresh') === '1');
    response.writeHead(answer.status, { 'content-length': answer.body.length }).end(answer.body);
    span.setAttribute('http.response.status_code', answer.status);
  } catch (error) {
    response.writeHead(502).end(String(error));
    span.setAttribute('http.response.status_code', 502);
  }
  span.end();
});
const [host, port] = listen.split(':');
server.listen({ port: Number(port), host, backlog: 16 }, () => console.log(`listening ${listen}`));
process.on('SIGTERM', () => sdk.shutdown().finally(() => process.exit(0)));
