// The left pane: requests, chats, people, groups to join.

import { $, ago, attempt, el } from "./dom.js";

const DOTS = {
  active: ["●", "active"], idle: ["◐", "idle"], away: ["◐", "away"], dnd: ["⊘", "do not disturb"],
  left: ["○", "offline"], lost: ["○", "lost contact"], unknown: ["?", "unknown"],
};

export function dot(status) {
  const [glyph, words] = DOTS[status] ?? DOTS.unknown;
  return el("span", { class: `dot ${status}`, title: words },
    el("span", { "aria-hidden": "true" }, glyph), el("span", { class: "visually-hidden" }, words));
}

export function presenceText(person) {
  if (!person) return "";
  const words = (DOTS[person.status] ?? DOTS.unknown)[1];
  const unstable = person.unstable ? ", comes and goes" : "";
  if (person.status === "unknown" && person.last_known) {
    return `was ${(DOTS[person.last_known] ?? DOTS.unknown)[1]}`;
  }
  const here = ["active", "idle", "away", "dnd"].includes(person.status);
  const seen = !here && person.last_seen ? `, seen ${ago(person.last_seen)}` : "";
  return words + seen + unstable + (person.text ? ` — ${person.text}` : "");
}

export class Sidebar {
  constructor(model, net, open) {
    this.model = model;
    this.net = net;
    this.open = open;
    $("filter").addEventListener("input", () => this.render());
    $("filter").addEventListener("keydown", (event) => {
      if (event.key === "Enter") {
        event.preventDefault();
        document.querySelector("#chat-list .row, #people-list .row")?.click();
      }
      if (event.key === "Escape") {
        event.target.value = "";
        this.render();
      }
    });
    $("group-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const name = $("group-name").value.trim();
      if (!name) return;
      attempt(async () => {
        const { conv } = await net.call("create_group", { name });
        $("group-name").value = "";
        open(conv);
      });
    });
  }

  // Conversations in the order shown.
  order() {
    return [...this.model.chats.values()].sort((a, b) => {
      const last = (chat) => chat.items.at(-1)?.sort ?? "";
      return last(b).localeCompare(last(a)) || a.title.localeCompare(b.title);
    });
  }

  render() {
    const wanted = $("filter").value.trim().toLocaleLowerCase();
    const fits = (name) => name.toLocaleLowerCase().includes(wanted);
    this.#requests();
    $("chat-list").replaceChildren(
      ...this.order().filter((chat) => fits(chat.title)).map((chat) => this.#chatRow(chat)));
    const talking = new Set([...this.model.chats.values()]
      .filter((chat) => chat.kind === "dm" && chat.state !== "closed").map((chat) => chat.peer));
    const people = [...this.model.people.values()]
      .filter((person) => person.user !== this.model.me?.user && fits(person.user))
      .sort((a, b) => a.user.localeCompare(b.user));
    $("people-list").replaceChildren(
      ...people.map((person) => this.#personRow(person, talking.has(person.user))));
    const joined = new Set(this.model.chats.keys());
    $("listing-list").replaceChildren(...[...this.model.listings.values()]
      .filter((listing) => !joined.has(listing.group) && fits(listing.name))
      .map((listing) => this.#listingRow(listing)));
  }

  #requests() {
    const all = [...this.model.requests.values()];
    $("requests").hidden = all.length === 0;
    $("request-list").replaceChildren(...all.map((request) => el("li", { class: "card" },
      el("b", {}, request.peer), " asks to chat",
      request.note ? el("p", { class: "sub" }, request.note) : null,
      el("div", { class: "buttons" },
        el("button", { class: "primary", "data-accept": request.peer, onclick: () => attempt(async () => {
          const { conv } = await this.net.call("accept", { invite: request.invite });
          this.open(conv);
        }) }, "Accept"),
        el("button", { onclick: () => attempt(() =>
          this.net.call("reject", { invite: request.invite, told: true, reason: "" })) }, "Decline"),
        el("button", { title: "They learn nothing", onclick: () => attempt(() =>
          this.net.call("reject", { invite: request.invite, told: false, reason: "" })) }, "Ignore")))));
  }

  #chatRow(chat) {
    const person = chat.kind === "dm" ? this.model.people.get(chat.peer) : null;
    const state = { asking: "asked", closed: "over" }[chat.state];
    return el("li", {}, el("button", {
      class: "row", type: "button", "data-conv": chat.conv, "data-chat": chat.title,
      "aria-current": String(chat.conv === this.model.current), onclick: () => this.open(chat.conv),
    },
    chat.kind === "group" ? el("span", { class: "dot", "aria-hidden": "true" }, "#") : dot(person?.status ?? "unknown"),
    el("span", { class: "name" }, chat.title),
    state ? el("span", { class: "aside" }, state) : null,
    chat.requests?.length ? el("span", { class: "badge", title: "join requests" }, `+${chat.requests.length}`) : null,
    chat.unread.size ? el("span", { class: "badge" }, String(chat.unread.size),
      el("span", { class: "visually-hidden" }, " unread")) : null));
  }

  #personRow(person, talking) {
    const ask = () => attempt(async () => {
      const { conv } = await this.net.call("request", { peer: person.user, note: "" });
      this.open(conv);
    });
    const conv = [...this.model.chats.values()].find((chat) => chat.peer === person.user)?.conv;
    return el("li", {}, el("button", {
      class: "row", type: "button", "data-person": person.user,
      title: talking ? "Open the chat" : "Ask to chat", onclick: () => (talking ? this.open(conv) : ask()),
    }, dot(person.status), el("span", { class: "name" }, person.user),
    el("span", { class: "aside" }, talking ? "" : "ask"),
    el("span", { class: "visually-hidden" }, presenceText(person))));
  }

  #listingRow(listing) {
    return el("li", {}, el("button", {
      class: "row", type: "button", "data-listing": listing.name, title: `Led by ${listing.leader}; ask to join`,
      onclick: () => attempt(async () => {
        const { conv } = await this.net.call("join", { group: listing.group, note: "" });
        this.open(conv);
      }),
    }, el("span", { class: "dot", "aria-hidden": "true" }, "#"), el("span", { class: "name" }, listing.name),
    el("span", { class: "aside" }, `${listing.members} in, join`)));
  }
}
