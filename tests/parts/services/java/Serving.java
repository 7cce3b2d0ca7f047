// Serves functions of the official Java SDK by the JDK's own HTTP server, for all services here.
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;
import org.apache.flink.statefun.sdk.java.StatefulFunctions;
import org.apache.flink.statefun.sdk.java.handler.RequestReplyHandler;
import org.apache.flink.statefun.sdk.java.slice.Slice;
import org.apache.flink.statefun.sdk.java.slice.Slices;

final class Serving {
  private Serving() {}

  static HttpServer at(String port) throws IOException {
    HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(port)), 1024);
    server.setExecutor(Executors.newFixedThreadPool(8));
    server.createContext("/", exchange -> answer(exchange, 404, new byte[0]));
    return server;
  }

  static void serve(HttpServer server, String path, StatefulFunctions functions) {
    RequestReplyHandler handler = functions.requestReplyHandler();
    server.createContext(
        path,
        exchange -> {
          if (!exchange.getRequestURI().getPath().equals(path)) {
            answer(exchange, 404, new byte[0]);
            return;
          }
          Slice request = Slices.wrap(exchange.getRequestBody().readAllBytes());
          handler
              .handle(request)
              .whenComplete(
                  (result, error) -> {
                    if (error == null) {
                      exchange.getResponseHeaders().set("Content-Type", "application/octet-stream");
                    }
                    answer(exchange, error == null ? 200 : 500, error == null ? result.toByteArray() : new byte[0]);
                  });
        });
  }

  private static void answer(HttpExchange exchange, int status, byte[] body) {
    try (exchange) {
      exchange.sendResponseHeaders(status, body.length == 0 ? -1 : body.length);
      if (body.length > 0) {
        exchange.getResponseBody().write(body);
      }
    } catch (IOException error) {
      System.err.println("whoever asked is gone: " + error);
    }
  }
}
