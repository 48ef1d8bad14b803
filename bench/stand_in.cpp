// A datanode without a database: lets everybody in and answers each query as if DISCARD ALL were
// done, so that a pool's own share of a reset can be measured. On a Unix socket, as is the bare
// pass of a descriptor with which that is compared. One thread; ends when its input does.
//   stand_in DIRECTORY PORT
#include <arpa/inet.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>
#include <string_view>
#include <unordered_map>

#include "measure.h"

namespace {

void PutLength(std::string* out, size_t value) {
  const uint32_t length = htonl(static_cast<uint32_t>(value));
  out->append(reinterpret_cast<const char*>(&length), sizeof(length));
}

void Put(std::string* out, char type, std::string_view body) {
  out->push_back(type);
  PutLength(out, body.size() + 4);
  out->append(body);
}

std::string Welcome() {
  using namespace std::string_view_literals;
  std::string out;
  Put(&out, 'R', "\0\0\0\0"sv);
  for (const std::string_view parameter :
       {"server_version\00015.0\0"sv, "server_encoding\0UTF8\0"sv, "client_encoding\0UTF8\0"sv,
        "is_superuser\0on\0"sv, "session_authorization\0postgres\0"sv, "DateStyle\0ISO, MDY\0"sv,
        "IntervalStyle\0postgres\0"sv, "TimeZone\0UTC\0"sv, "integer_datetimes\0on\0"sv,
        "standard_conforming_strings\0on\0"sv, "application_name\0\0"sv}) {
    Put(&out, 'S', parameter);
  }
  Put(&out, 'K', "\0\0\0\1\0\0\0\1"sv);
  Put(&out, 'Z', "I");
  return out;
}

std::string Done() {
  std::string out;
  Put(&out, 'C', std::string_view("DISCARD ALL", 12));
  Put(&out, 'Z', "I");
  return out;
}

const std::string kWelcome = Welcome();
const std::string kDone = Done();

struct Client {
  std::string in;
  bool welcome = false;
};

// The length of the message at the front, the type's byte included; 0: it is not whole.
size_t MessageSize(const Client& client) {
  const size_t type = client.welcome ? 1 : 0;
  uint32_t length = 0;
  if (client.in.size() < type + sizeof(length)) {
    return 0;
  }
  client.in.copy(reinterpret_cast<char*>(&length), sizeof(length), type);
  const size_t size = type + ntohl(length);
  return client.in.size() < size ? 0 : size;
}

void Answer(int socket, std::string_view text) {
  if (send(socket, text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size())) {
    bench::Die("an answer could not be sent");
  }
}

// False: the client is gone.
bool Serve(int socket, Client* client) {
  char bytes[4096];
  const ssize_t got = recv(socket, bytes, sizeof(bytes), 0);
  if (got <= 0) {
    return false;
  }
  client->in.append(bytes, static_cast<size_t>(got));
  while (const size_t size = MessageSize(*client)) {
    const char type = client->in[0];
    client->in.erase(0, size);
    if (!client->welcome) {
      client->welcome = true;
      Answer(socket, kWelcome);
    } else if (type == 'X') {
      return false;
    } else {
      Answer(socket, kDone);
    }
  }
  return true;
}

// Where libpq looks for it.
int Listen(const std::string& directory, const std::string& port) {
  const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  const std::string path = directory + "/.s.PGSQL." + port;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    bench::Die("the directory's name is too long");
  }
  path.copy(address.sun_path, path.size());
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(listener, 128) != 0) {
    bench::Die("could not listen");
  }
  return listener;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    bench::Die("usage: stand_in DIRECTORY PORT");
  }
  const int poller = epoll_create1(EPOLL_CLOEXEC);
  const auto watch = [poller](int fd) {
    epoll_event event{EPOLLIN, {.fd = fd}};
    return epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) == 0;
  };
  const int listener = Listen(argv[1], argv[2]);
  if (!watch(listener) || !watch(STDIN_FILENO)) {
    bench::Die("could not watch the listener and the input, which must be a pipe");
  }
  std::unordered_map<int, Client> clients;
  epoll_event events[64];
  for (;;) {
    const int count = epoll_wait(poller, events, 64, -1);
    for (int i = 0; i < count; i++) {
      const int fd = events[i].data.fd;
      if (fd == STDIN_FILENO) {
        return 0;
      }
      if (fd == listener) {
        const int socket = accept(listener, nullptr, nullptr);
        clients.try_emplace(socket);
        (void)watch(socket);
      } else if (!Serve(fd, &clients[fd])) {
        clients.erase(fd);
        close(fd);
      }
    }
  }
}
