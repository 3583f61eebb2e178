import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.api.trace.propagation.W3CTraceContextPropagator;
import io.opentelemetry.context.Context;
import io.opentelemetry.context.propagation.TextMapGetter;
import io.opentelemetry.sdk.autoconfigure.AutoConfiguredOpenTelemetrySdk;
import java.io.IOException;
import java.io.InputStream;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.concurrent.Executors;

/**
 * The first service of the fault lab's chain: one thread for each request, the upstream SDK,
 * a blocking call of the next service. What a request does is in its query, one parameter
 * for each service: front=cpu:5,lock:40 is 5 ms of CPU time, then 40 ms in the one lock that
 * all requests share. Verbs: cpu, lock, sleep (milliseconds), gc (full collections).
 *
 * Arguments: the address to listen on, the address of the next service.
 */
public final class Front {
  private static final ThreadMXBean THREADS = ManagementFactory.getThreadMXBean();
  private static final Object LOCK = new Object();
  /** What lives long and makes a full collection slow. */
  private static byte[][] live = new byte[0][];

  private static long burn(long cpuMs) {
    long end = THREADS.getCurrentThreadCpuTime() + cpuMs * 1_000_000;
    long total = 0;
    while (THREADS.getCurrentThreadCpuTime() < end) {
      for (int number = 0; number < 5_000; number++) {
        total = total * 31 + number;
      }
    }
    return total;
  }

  private static void collect(long times) {
    if (live.length == 0) {
      byte[][] objects = new byte[400_000][];
      for (int at = 0; at < objects.length; at++) {
        objects[at] = new byte[48];
      }
      live = objects;
    }
    for (long time = 0; time < times; time++) {
      System.gc();
    }
  }

  private static void perform(String steps) throws InterruptedException {
    for (String step : steps.split(",")) {
      String[] parts = step.split(":");
      long amount = parts.length > 1 ? Long.parseLong(parts[1]) : 0;
      switch (parts[0]) {
        case "cpu" -> burn(amount);
        case "sleep" -> Thread.sleep(amount);
        case "gc" -> collect(amount);
        case "lock" -> {
          synchronized (LOCK) {
            Thread.sleep(amount);
          }
        }
        default -> { }
      }
    }
  }

  private static String parameter(String query, String name) {
    for (String pair : query.split("&")) {
      if (pair.startsWith(name + "=")) {
        return pair.substring(name.length() + 1);
      }
    }
    return "";
  }

  /** Asks the next service; where the connection is refused or broken, again, a little later. */
  private static byte[] ask(Tracer tracer, String next, String path, String query) throws Exception {
    Span span = tracer.spanBuilder("GET").setSpanKind(SpanKind.CLIENT).startSpan();
    String[] address = next.split(":");
    span.setAttribute("server.address", address[0]);
    span.setAttribute("server.port", Long.parseLong(address[1]));
    span.setAttribute("http.request.method", "GET");
    try {
      for (int attempt = 1; ; attempt++) {
        try {
          HttpURLConnection connection =
              (HttpURLConnection) URI.create("http://" + next + path + "?" + query).toURL().openConnection();
          connection.setReadTimeout(20_000);
          if (query.contains("fresh=1")) {
            connection.setRequestProperty("connection", "close");
          }
          W3CTraceContextPropagator.getInstance().inject(
              Context.root().with(span), connection, (carrier, key, value) -> carrier.setRequestProperty(key, value));
          try (InputStream body = connection.getInputStream()) {
            return body.readAllBytes();
          }
        } catch (IOException refused) {
          if (attempt == 20) {
            throw refused;
          }
          Thread.sleep(10);
        }
      }
    } finally {
      span.end();
    }
  }

  private static final TextMapGetter<HttpExchange> HEADERS =
      new TextMapGetter<>() {
        @Override
        public Iterable<String> keys(HttpExchange exchange) {
          return exchange.getRequestHeaders().keySet();
        }

        @Override
        public String get(HttpExchange exchange, String key) {
          return exchange.getRequestHeaders().getFirst(key);
        }
      };

  private static void handle(Tracer tracer, String next, HttpExchange exchange) throws IOException {
    String path = exchange.getRequestURI().getPath();
    String query = String.valueOf(exchange.getRequestURI().getRawQuery());
    Context caller =
        W3CTraceContextPropagator.getInstance().extract(Context.root(), exchange, HEADERS);
    Span span = tracer.spanBuilder("GET " + path).setSpanKind(SpanKind.SERVER).setParent(caller).startSpan();
    span.setAttribute("http.request.method", "GET");
    span.setAttribute("http.route", path);
    int status = 200;
    byte[] body;
    try (var inside = span.makeCurrent()) {
      perform(parameter(query, "front"));
      body = ask(tracer, next, path, query);
    } catch (Exception failed) {
      status = 502;
      body = String.valueOf(failed).getBytes(StandardCharsets.UTF_8);
    }
    exchange.getResponseHeaders().add("content-type", "text/plain");
    exchange.getResponseHeaders().add("x-trace-id", span.getSpanContext().getTraceId());
    exchange.sendResponseHeaders(status, body.length);
    exchange.getResponseBody().write(body);
    span.setAttribute("http.response.status_code", status);
    span.end();
    exchange.close();
  }

  /** Milliseconds of all collections so far: what the lab checks a pause by. */
  private static String collections() {
    return String.valueOf(
        ManagementFactory.getGarbageCollectorMXBeans().stream().mapToLong(bean -> bean.getCollectionTime()).sum());
  }

  public static void main(String[] args) throws Exception {
    Tracer tracer = AutoConfiguredOpenTelemetrySdk.initialize().getOpenTelemetrySdk().getTracer("front");
    String[] listen = args[0].split(":");
    HttpServer server = HttpServer.create(new InetSocketAddress(listen[0], Integer.parseInt(listen[1])), 64);
    server.setExecutor(Executors.newFixedThreadPool(8));
    for (String path : List.of("/buy", "/report")) {
      server.createContext(path, exchange -> handle(tracer, args[1], exchange));
    }
    server.createContext("/collections", exchange -> {
      byte[] body = collections().getBytes(StandardCharsets.UTF_8);
      exchange.sendResponseHeaders(200, body.length);
      exchange.getResponseBody().write(body);
      exchange.close();
    });
    server.start();
    System.out.println("listening " + listen[0] + ":" + server.getAddress().getPort());
  }
}
