import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.context.Context;
import io.opentelemetry.sdk.autoconfigure.AutoConfiguredOpenTelemetrySdk;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.Executors;

/**
 * A web service with a pool of threads, one for each request, and the upstream OpenTelemetry SDK.
 * GET /mixed?cpu_ms=N&sleep_ms=M computes, sleeps, computes again; the answer names the thread that
 * did it, as the kernel counts threads.
 */
public final class Threads {
  private static final ThreadMXBean THREADS = ManagementFactory.getThreadMXBean();

  private static void burn(long cpuUs) {
    long end = THREADS.getCurrentThreadCpuTime() + cpuUs * 1_000;
    while (THREADS.getCurrentThreadCpuTime() < end) {
      Thread.onSpinWait();
    }
  }

  private static long parameter(String query, String name) {
    for (String pair : query.split("&")) {
      if (pair.startsWith(name + "=")) {
        return Long.parseLong(pair.substring(name.length() + 1));
      }
    }
    return 0;
  }

  private static String tid() throws IOException {
    return Files.readSymbolicLink(Path.of("/proc/thread-self")).getFileName().toString();
  }

  private static String work(Tracer tracer, String query) throws IOException, InterruptedException {
    long cpuUs = parameter(query, "cpu_ms") * 1_000;
    String tid = tid();
    Span span = tracer.spanBuilder("GET /mixed").setSpanKind(SpanKind.SERVER).startSpan();
    burn(cpuUs / 2);
    Span part = tracer.spanBuilder("part").setParent(Context.root().with(span)).startSpan();
    Thread.sleep(parameter(query, "sleep_ms"));
    burn(cpuUs / 2);
    part.end();
    span.end();
    return String.format("{\"trace_id\":\"%s\",\"tids\":{\"%s\":%s,\"%s\":%s}}",
        span.getSpanContext().getTraceId(),
        span.getSpanContext().getSpanId(), tid,
        part.getSpanContext().getSpanId(), tid);
  }

  private static void answer(Tracer tracer, HttpExchange exchange) throws IOException {
    byte[] body;
    try {
      String query = String.valueOf(exchange.getRequestURI().getQuery());
      body = work(tracer, query).getBytes(StandardCharsets.UTF_8);
    } catch (InterruptedException interrupted) {
      throw new IOException(interrupted);
    }
    exchange.sendResponseHeaders(200, body.length);
    exchange.getResponseBody().write(body);
    exchange.close();
  }

  public static void main(String[] args) throws Exception {
    Tracer tracer =
        AutoConfiguredOpenTelemetrySdk.initialize().getOpenTelemetrySdk().getTracer("threads");
    String[] listen = args[0].split(":");
    HttpServer server =
        HttpServer.create(new InetSocketAddress(listen[0], Integer.parseInt(listen[1])), 256);
    server.setExecutor(Executors.newFixedThreadPool(64));
    server.createContext("/mixed", exchange -> answer(tracer, exchange));
    server.start();
    System.out.println("listening " + listen[0] + ":" + server.getAddress().getPort());
  }
}
