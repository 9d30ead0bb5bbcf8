// The middle pane: one conversation's log, marks, typing line and composer; and the group panel.

import { $, attempt, clock, colour, day, el, toast } from "./dom.js";
import { dot, presenceText } from "./sidebar.js";

const MARKS = { queued: "·", handed_off: "✓", delivered: "✓✓", displayed: "✓✓" };
const MARK_WORDS = { queued: "queued", handed_off: "sent", delivered: "delivered", displayed: "read" };
const FAILURES = {
  expired: "expired before it arrived", refused: "refused by the receiver",
  gone: "the conversation ended first", cancelled: "taken back",
  too_large: "too large for this broker", denied: "the broker does not let us write there",
};
const PAGE = 50;
const TYPING_EVERY_MS = 3000;

export class Conversation {
  constructor(model, net, close) {
    this.model = model;
    this.net = net;
    this.typedAt = 0;
    this.loading = false;
    $("back").addEventListener("click", close);
    $("log").addEventListener("scroll", () => this.#scrolled());
    $("jump").addEventListener("click", () => this.toBottom());
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    $("draft").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.send();
      }
    });
    $("draft").addEventListener("input", () => this.#typed());
  }

  get chat() {
    return this.model.chats.get(this.model.current);
  }

  // Shows the current conversation from its newest page.
  async show() {
    const chat = this.chat;
    if (!chat) return;
    $("draft").value = localStorage.getItem(`draft:${this.model.me.user}:${chat.conv}`) ?? "";
    this.#fit();
    this.renderHead();
    this.renderLog();
    this.toBottom();
    if (!chat.complete) await this.loadOlder();
    this.toBottom();
    this.markRead();
  }

  renderHead() {
    const chat = this.chat;
    if (!chat) return;
    $("conv-title").textContent = chat.title;
    const person = this.model.people.get(chat.peer);
    $("conv-sub").textContent = chat.kind === "group" ? this.#groupLine(chat) : this.#peerLine(chat, person);
    $("conv-actions").replaceChildren(...this.#actions(chat));
    $("composer").hidden = chat.state !== "open";
    this.#lead(chat);
    this.#panel(chat);
    this.renderTyping();
  }

  renderLog() {
    const chat = this.chat;
    if (!chat) return;
    const log = $("log");
    const atBottom = this.#atBottom();
    const height = log.scrollHeight;
    const top = log.scrollTop;
    const rows = [];
    let previous = null;
    for (const item of chat.items) {
      if (item.at && (!previous || new Date(previous.at).toDateString() !== new Date(item.at).toDateString())) {
        rows.push(el("div", { class: "rule" }, day(item.at)));
      }
      if (item.id === chat.newFrom) rows.push(el("div", { class: "rule new" }, "new"));
      rows.push(this.#item(chat, item, previous));
      previous = item;
    }
    log.replaceChildren(...rows);
    if (atBottom) this.toBottom();
    else if (this.loading) log.scrollTop = top + log.scrollHeight - height;
    $("jump").hidden = atBottom || !chat.unread.size;
    $("jump").textContent = `↓ ${chat.unread.size} new`;
  }

  renderTyping() {
    const names = [...(this.chat?.typing.keys() ?? [])];
    $("typing").textContent = names.length ? `${names.join(", ")} ${names.length > 1 ? "are" : "is"} typing…` : "";
  }

  async loadOlder() {
    const chat = this.chat;
    if (!chat || chat.complete || this.loading) return;
    this.loading = true;
    await attempt(async () => {
      const before = chat.items.find((item) => item.sort !== "~")?.sort;
      const { items } = await this.net.call("history", { conv: chat.conv, before, limit: PAGE });
      for (const item of items) this.model.insert(chat, item);
      chat.complete = items.length < PAGE;
      if (chat.conv === this.model.current) this.renderLog();
    });
    this.loading = false;
  }

  // Somebody looks at the end of this log: what arrives there is read at once.
  isWatched(conv) {
    return conv === this.model.current && !document.hidden && document.hasFocus() && this.#atBottom();
  }

  // Everything shown counts as read while somebody looks at the end of the log.
  markRead() {
    const chat = this.chat;
    if (!chat || !this.isWatched(chat.conv)) return;
    const last = this.model.lastReceived(chat);
    chat.unread.clear();
    if (last && last.sort > chat.lastRead) {
      chat.lastRead = last.sort;
      this.net.call("read", { conv: chat.conv, up_to: last.sort }).catch(() => {
        // Not told; it is told with the next message that is read.
        chat.lastRead = "";
      });
    }
  }

  toBottom() {
    $("log").scrollTop = $("log").scrollHeight;
    $("jump").hidden = true;
  }

  async send() {
    const chat = this.chat;
    const text = $("draft").value.trim();
    if (!chat || !text) return;
    // The echo is on the screen before anything is sent, and keeps its place until the server
    // names the message.
    const txn = crypto.randomUUID().replaceAll("-", "");
    const echo = { kind: "sent", id: txn, sort: "~", at: Date.now(), text, ack: null, from: this.model.me.user };
    this.model.insert(chat, echo);
    chat.newFrom = null;
    this.#draft("");
    this.renderLog();
    this.toBottom();
    try {
      await this.net.call("send", { conv: chat.conv, txn, text });
    } catch (error) {
      chat.items = chat.items.filter((item) => item.id !== txn);
      if ($("draft").value === "") this.#draft(text);
      this.renderLog();
      toast(`Not sent: ${error.message}`);
    }
  }

  #item(chat, item, previous) {
    if (item.kind === "gap") {
      const many = item.count === 1 ? "1 message" : `${item.count} messages`;
      return el("div", { class: "rule gap", "data-gap": item.count },
        `${many} from ${item.from} did not arrive`);
    }
    const mine = item.kind === "sent";
    const same = previous?.from === item.from && previous?.kind === item.kind;
    const node = el("div", {
      class: `msg${mine ? " mine" : ""}${same ? " same" : ""}${item.failed ? " failed" : ""}`,
      "data-id": item.id,
    });
    if (!mine && !same && chat.kind === "group") {
      const from = el("div", { class: "from" }, item.from);
      from.style.color = colour(item.from);
      node.append(from);
    }
    node.append(el("div", { class: "text" }, item.text));
    if (item.former) node.append(el("div", { class: "note" }, "late, from a former member"));
    if (item.clock_suspect) node.append(el("div", { class: "note" }, "its sender's clock is wrong"));
    const meta = el("div", { class: "meta" }, el("span", {}, clock(item.at)));
    if (mine) meta.append(this.#mark(item));
    node.append(meta);
    if (item.wedged && !item.failed) node.append(this.#wedged(chat, item));
    return node;
  }

  #mark(item) {
    if (item.failed) {
      return el("span", { class: "mark failed", title: FAILURES[item.failed] ?? item.failed },
        "! ", FAILURES[item.failed] ?? item.failed);
    }
    const words = MARK_WORDS[item.ack] ?? "not yet stored";
    return el("span", { class: `mark ${item.ack ?? ""}`, title: words, "data-mark": item.ack ?? "none" },
      el("span", { "aria-hidden": "true" }, MARKS[item.ack] ?? "…"),
      el("span", { class: "visually-hidden" }, words));
  }

  // The broker will never take it as it is: what comes after it waits for a decision.
  #wedged(chat, item) {
    const ask = (kind) => () => attempt(() => this.net.call(kind, { conv: chat.conv, message: item.id }));
    return el("div", { class: "note wedged", "data-wedged": item.wedged },
      `Not sent: ${FAILURES[item.wedged]}. `,
      el("button", { onclick: ask("retry") }, "Retry"), " ",
      el("button", { onclick: ask("discard") }, "Discard"));
  }

  #peerLine(chat, person) {
    if (chat.state === "asking") return "asked; waiting for an answer";
    if (chat.state === "closed") return chat.why || "this chat is over";
    return presenceText(person);
  }

  // Who leads now and why, until it is read.
  #lead(chat) {
    const lead = chat.state === "open" ? chat.lead : null;
    $("lead").hidden = !lead;
    if (!lead) return;
    const who = lead.leader === this.model.me.user ? "You lead" : `${lead.leader} leads`;
    $("lead").replaceChildren(
      el("span", {}, `★ ${who} now, because ${lead.why}. Term ${lead.term}.`),
      el("button", { class: "icon", title: "Understood", onclick: () => { chat.lead = null; this.#lead(chat); } }, "✕"));
  }

  #groupLine(chat) {
    const lines = { asking: "asked to join; waiting for the leader", leaving: "leaving…", closed: chat.why || "you are out" };
    return lines[chat.state] ?? `${this.#here(chat)}, led by ${chat.leader}, term ${chat.term}`;
  }

  #here({ company, roster }) {
    return company ? `${company.here} of ${company.members} here` : `${roster?.length ?? 0} members`;
  }

  #actions(chat) {
    const call = (kind, fields) => () => attempt(() => this.net.call(kind, fields));
    if (chat.kind === "group") {
      if (chat.state === "asking") return [el("button", { onclick: call("withdraw", { group: chat.conv }) }, "Withdraw")];
      if (chat.state !== "open") return [];
      return [
        el("button", { class: "only-small", onclick: () => $("app").classList.toggle("show-panel") }, "Members"),
        el("button", { id: "leave", onclick: () => this.#leave(chat) }, "Leave"),
      ];
    }
    if (chat.state === "asking") return [el("button", { onclick: call("cancel", { invite: chat.invite }) }, "Cancel")];
    if (chat.state === "closed") {
      return [el("button", { class: "primary", onclick: call("request", { peer: chat.peer, note: "" }) }, "Ask again")];
    }
    return [
      el("button", { onclick: call("close", { peer: chat.peer }) }, "Leave"),
      el("button", { onclick: () => confirm(`Block ${chat.peer}? They learn nothing.`) && call("block", { peer: chat.peer })() }, "Block"),
    ];
  }

  // Who takes over is shown before anything is done.
  #leave(chat) {
    attempt(async () => {
      const plan = await this.net.call("plan_leave", { group: chat.conv });
      const then = plan.closes ? "You are the last: the group closes."
        : plan.successor ? `${plan.successor} will be asked to lead.` : "";
      if (confirm(`Leave ${chat.title}? ${then}`)) await this.net.call("leave", { group: chat.conv });
    });
  }

  #panel(chat) {
    const show = chat.kind === "group" && chat.state === "open";
    $("panel").hidden = !show;
    $("app").classList.toggle("with-panel", show);
    if (!show) return;
    const leads = chat.leader === this.model.me.user;
    const parts = [];
    if (chat.offer) {
      parts.push(el("div", { class: "card" }, `${chat.offer} asks you to lead.`, el("div", { class: "buttons" },
        el("button", { class: "primary", onclick: () => attempt(() => this.net.call("answer_offer", { group: chat.conv, accept: true })) }, "Lead"),
        el("button", { onclick: () => attempt(() => this.net.call("answer_offer", { group: chat.conv, accept: false })) }, "Decline"))));
    }
    if (leads && chat.requests?.length) {
      parts.push(el("h3", {}, "Join requests"), ...chat.requests.map((request) => el("div", { class: "card" },
        el("b", {}, request.user), request.note ? el("p", { class: "sub" }, request.note) : null,
        el("div", { class: "buttons" },
          el("button", { class: "primary", "data-approve": request.user,
            onclick: () => attempt(() => this.net.call("approve", { group: chat.conv, request: request.request })) }, "Let in"),
          el("button", { onclick: () => attempt(() => this.net.call("deny", { group: chat.conv, request: request.request, reason: "" })) }, "Refuse")))));
    }
    parts.push(el("h3", {}, `Members · ${this.#here(chat)}`), ...(chat.roster ?? []).map((user) => this.#member(chat, user, leads)));
    $("panel").replaceChildren(...parts);
  }

  #member(chat, user, leads) {
    const self = user === this.model.me.user;
    const person = chat.company?.people.find((one) => one.user === user) ?? this.model.people.get(user);
    const status = self ? "active" : person?.status ?? "unknown";
    const row = el("div", { class: "member" }, dot(status),
      el("span", { class: "name" }, user),
      user === chat.leader ? el("span", { class: "badge", "data-leader": user, title: `Leads in term ${chat.term}` }, `★ leads · term ${chat.term}`) : null);
    if (leads && !self) {
      row.append(
        el("button", { title: `Ask ${user} to lead`, onclick: () => attempt(() => this.net.call("hand_over", { group: chat.conv, user })) }, "★"),
        el("button", { title: `Remove ${user}`, onclick: () => confirm(`Remove ${user}?`)
          && attempt(() => this.net.call("kick", { group: chat.conv, user, reason: "" })) }, "✕"));
    }
    return row;
  }

  #typed() {
    this.#draft($("draft").value);
    const now = Date.now();
    if ($("draft").value && now - this.typedAt > TYPING_EVERY_MS) {
      this.typedAt = now;
      this.net.call("typing", { conv: this.model.current, active: true }).catch(() => {});
    }
    if (!$("draft").value) this.typedAt = 0;
  }

  #draft(text) {
    $("draft").value = text;
    const key = `draft:${this.model.me.user}:${this.model.current}`;
    if (text) localStorage.setItem(key, text);
    else localStorage.removeItem(key);
    this.#fit();
  }

  #fit() {
    const draft = $("draft");
    draft.style.height = "auto";
    draft.style.height = `${draft.scrollHeight + 2}px`;
  }

  #atBottom() {
    const log = $("log");
    return log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  }

  #scrolled() {
    if ($("log").scrollTop < 80) this.loadOlder();
    if (this.#atBottom()) {
      $("jump").hidden = true;
      this.markRead();
    }
  }
}
