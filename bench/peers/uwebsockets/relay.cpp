// The least that a sync server could do, by the fastest library there is: rooms by path, every message to the room's
// others. No CRDT, no tokens, no state. Usage: relay PORT
#include "App.h"
#include <cstdlib>
#include <string>

struct Room {
    std::string path;
};

int main(int argc, char **argv) {
    int port = argc > 1 ? std::atoi(argv[1]) : 0;
    if (port <= 0) return 2;
    // Nothing is compressed, nothing times out, and 256 MiB may wait for a slow reader: a relay that drops is no relay.
    uWS::App()
        .ws<Room>("/*", {
            .maxPayloadLength = 16 << 20,
            .idleTimeout = 0,
            .maxBackpressure = 256 << 20,
            .upgrade = [](auto *response, auto *request, auto *context) {
                response->template upgrade<Room>({std::string(request->getUrl())},
                    request->getHeader("sec-websocket-key"), request->getHeader("sec-websocket-protocol"),
                    request->getHeader("sec-websocket-extensions"), context);
            },
            .open = [](auto *socket) { socket->subscribe(socket->getUserData()->path); },
            .message = [](auto *socket, std::string_view message, uWS::OpCode code) {
                socket->publish(socket->getUserData()->path, message, code);
            },
        })
        .listen("127.0.0.1", port, [](auto *listener) { if (!listener) std::exit(1); })
        .run();
}
