import com.sun.net.httpserver.HttpServer;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.context.Context;
import io.opentelemetry.sdk.autoconfigure.AutoConfiguredOpenTelemetrySdk;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;

/**
 * A small web service with the upstream OpenTelemetry SDK (HTTP exporter, protobuf), as its
 * documentation sets it up. GET /work?cpu_ms=N uses N ms of CPU time, whatever the wall clock
 * says. The endpoint, the protocol and the service's name come from the OTEL_* environment.
 */
public final class App {
  private static final ThreadMXBean THREADS = ManagementFactory.getThreadMXBean();

  private static long burn(long cpuMs) {
    long end = THREADS.getCurrentThreadCpuTime() + cpuMs * 1_000_000;
    long total = 0;
    while (THREADS.getCurrentThreadCpuTime() < end) {
      for (int number = 0; number < 20_000; number++) {
        total = total * 31 + number;
      }
    }
    return total;
  }

  private static String work(Tracer tracer, long cpuMs) throws InterruptedException {
    Span span = tracer.spanBuilder("GET /work").setSpanKind(SpanKind.SERVER).startSpan();
    span.setAttribute("http.request.method", "GET");
    span.setAttribute("http.route", "/work");
    span.setAttribute("url.path", "/work");
    Span lookup = tracer.spanBuilder("lookup").setParent(Context.root().with(span)).startSpan();
    Thread.sleep(2);
    lookup.end();
    long total = burn(cpuMs);
    span.end();
    return String.format("{\"trace_id\":\"%s\",\"span_id\":\"%s\",\"total\":%d}",
        span.getSpanContext().getTraceId(), span.getSpanContext().getSpanId(), total);
  }

  public static void main(String[] args) throws Exception {
    Tracer tracer = AutoConfiguredOpenTelemetrySdk.initialize().getOpenTelemetrySdk().getTracer("app");
    String[] listen = (args.length > 0 ? args[0] : "127.0.0.1:0").split(":");
    HttpServer server = HttpServer.create(new InetSocketAddress(listen[0], Integer.parseInt(listen[1])), 16);
    server.createContext("/work", exchange -> {
      String query = String.valueOf(exchange.getRequestURI().getQuery());
      long cpuMs = query.startsWith("cpu_ms=") ? Long.parseLong(query.substring(7)) : 20;
      byte[] body;
      try {
        body = work(tracer, cpuMs).getBytes(StandardCharsets.UTF_8);
      } catch (InterruptedException interrupted) {
        throw new java.io.IOException(interrupted);
      }
      exchange.getResponseHeaders().add("content-type", "application/json");
      exchange.sendResponseHeaders(200, body.length);
      exchange.getResponseBody().write(body);
      exchange.close();
    });
    server.start();
    System.out.println("listening " + listen[0] + ":" + server.getAddress().getPort());
  }
}
