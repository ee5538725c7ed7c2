import com.sun.net.httpserver.HttpExchange;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Executors;

/** The JDK's own HTTP server with its defaults and a thread pool. usage: java HttpServer HOST PORT */
public final class HttpServer {
    public static void main(String[] arguments) throws IOException {
        var address = new InetSocketAddress(arguments[0], Integer.parseInt(arguments[1]));
        var server = com.sun.net.httpserver.HttpServer.create(address, 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", HttpServer::answer);
        server.createContext("/slow", exchange -> {
            sleep(Integer.parseInt(exchange.getRequestURI().getQuery().split("=")[1]));
            answer(exchange);
        });
        server.createContext("/download", HttpServer::download);
        server.start();
    }

    private static void answer(HttpExchange exchange) throws IOException {
        byte[] body = ("pid=" + ProcessHandle.current().pid() + "\n").getBytes(StandardCharsets.US_ASCII);
        exchange.sendResponseHeaders(200, body.length);
        try (OutputStream out = exchange.getResponseBody()) {
            out.write(body);
        }
    }

    private static void download(HttpExchange exchange) throws IOException {
        int tenths = 10 * Integer.parseInt(exchange.getRequestURI().getQuery().split("=")[1]);
        byte[] part = "x".repeat(1000).getBytes(StandardCharsets.US_ASCII);
        exchange.sendResponseHeaders(200, (long) tenths * part.length);
        try (OutputStream out = exchange.getResponseBody()) {
            for (int i = 0; i < tenths; i++) {
                out.write(part);
                out.flush();
                sleep(100);
            }
        }
    }

    private static void sleep(int milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException error) {
            throw new IllegalStateException(error);
        }
    }
}
