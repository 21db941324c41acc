"""Requests that offer another protocol, and a client in Java that sends them."""

H2C = {
    "Connection": "Upgrade, HTTP2-Settings",
    "Upgrade": "h2c",
    "HTTP2-Settings": "AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA",
}


JAVA = """
import java.net.URI;
import java.net.http.*;

public class Main {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int number = 0; number < 2; number++) {
            var body = HttpRequest.BodyPublishers.ofString(arguments[1]);
            var request = HttpRequest.newBuilder(URI.create(arguments[0])).POST(body).build();
            System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).body());
        }
    }
}
"""
