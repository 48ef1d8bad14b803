// What a request is told that cannot be served; pure functions.
#include "core/refusals.h"

#include <cstdio>

#include "core/request_queue.h"

namespace polarx {
namespace {

std::string WaitedText(const Ticket& ticket, TimePoint now) {
  char text[40];
  std::snprintf(text, sizeof(text), " (waited for %.1f s)",
                std::chrono::duration<double>(now - ticket.arrived_at).count());
  return text;
}

std::string PlaceText(const Node& node, int place) {
  return "The request is number " + std::to_string(place) + " of " + std::to_string(node.waiting) +
         " that wait for this datanode.";
}

}  // namespace

Status PasswordRefusal(const Node& node) {
  return Status(sqlstate::kPasswordRequired, "password is required",
                "Non-superuser cannot connect to datanode \"" + node.definition.name +
                    "\" if it does not request a password.",
                "The datanode's authentication method must be changed or password_required=false "
                "set in the user mapping attributes.");
}

Status PausedRefusal(const Node& node, const Ticket& ticket, TimePoint now) {
  return Status(sqlstate::kPoolFull,
                "datanode \"" + node.definition.name + "\" is paused" + WaitedText(ticket, now), "",
                "Run pooler.resume() to let requests go on.");
}

Status FullRefusal(const Node& node, const Ticket& ticket, int place,
                   const std::optional<LongestHolder>& holder, TimePoint now) {
  const int leased = node.leased();
  const int others = node.waiting - 1;
  char text[256];
  std::snprintf(text, sizeof(text),
                "%d of at most %d connections are leased, %d are being opened, reset or closed; "
                "%d other %s waiting.",
                leased, node.limits.max_size, node.total() - leased - node.count(SlotState::kIdle),
                others, others == 1 ? "request is" : "requests are");
  std::string detail = text;
  if (others > 0) {
    detail += " " + PlaceText(node, place);
  }
  if (holder.has_value()) {
    std::snprintf(text, sizeof(text), " Process %d has held one for %.1f s", holder->pid,
                  std::chrono::duration<double>(holder->held).count());
    detail += text;
    if (holder->waits != nullptr) {
      detail += " and waits for datanode";
      for (const Ticket::Want& want : holder->waits->wants) {
        detail += (&want == &holder->waits->wants.front() ? " \"" : ", \"") +
                  want.pool->node->definition.name + "\"";
      }
    }
    detail += ".";
  }
  std::string hint = "Raise pooler.max_pool_size (or the server's option max_pool_size), or ";
  hint += ticket.patient ? "raise pooler.queue_timeout to wait longer."
                         : "set pooler.queue_timeout to wait for a free connection.";
  std::string message = "pool of datanode \"" + node.definition.name + "\" is full";
  if (now - ticket.arrived_at >= std::chrono::milliseconds(50)) {
    message += WaitedText(ticket, now);
  }
  return Status(sqlstate::kPoolFull, message, detail, hint);
}

Status UnansweredRefusal(const Pool& pool, const Ticket& ticket,
                         std::chrono::seconds connect_timeout, TimePoint now) {
  const Node& node = *pool.node;
  const int connecting = node.count(SlotState::kConnecting);
  char text[160];
  std::snprintf(text, sizeof(text),
                "%d %s to it %s being opened, of at most %d at a time; %d of at most %d are "
                "leased. ",
                connecting, connecting == 1 ? "connection" : "connections",
                connecting == 1 ? "is" : "are", kParallelConnects, node.leased(),
                node.limits.max_size);
  const std::string what = ticket.patient
                               ? "no connection was open in time"
                               : "pooler.pooler_connect_timeout (" +
                                     std::to_string(connect_timeout.count()) + " s) is over";
  return Status(sqlstate::kConnectionFailed,
                "could not connect to datanode \"" + node.definition.name + "\": " + what +
                    WaitedText(ticket, now),
                text + PlaceText(node, RequestQueue::PlaceOn(node, ticket)),
                ticket.patient ? "Raise pooler.queue_timeout to wait longer."
                               : "Raise pooler.pooler_connect_timeout to wait longer.");
}

}  // namespace polarx
