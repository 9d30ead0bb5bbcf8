// What the page knows. `apply` takes one server event and changes the model; views only read it.
// Timelines are kept in display order by `sort`, the same on every screen.

export class Model {
  constructor() {
    this.reset();
  }

  reset() {
    this.me = null;
    this.link = { state: "connecting" };
    this.people = new Map(); // user -> person
    this.requests = new Map(); // invite -> request
    this.chats = new Map(); // conv -> chat
    this.listings = new Map(); // group -> listing
    this.current = null;
  }

  // Applies one event; returns what changed: "people", "chats", "requests", "log:<conv>", …
  apply(event) {
    switch (event.t) {
      case "state":
        return this.#state(event);
      case "link":
        this.link = event;
        return ["link"];
      case "person":
        this.people.set(event.user, event);
        return ["people"];
      case "request":
        this.requests.set(event.invite, event);
        return ["requests"];
      case "request_gone":
        this.requests.delete(event.invite);
        return ["requests"];
      case "listing":
        this.listings.set(event.group, event);
        return ["listings"];
      case "unlisted":
        this.listings.delete(event.group);
        return ["listings"];
      case "chat":
        this.chat(event.conv, event);
        return ["chats", `log:${event.conv}`];
      case "company":
        this.chat(event.conv, { company: event.company });
        return ["chats"];
      case "lead":
        this.chat(event.conv, { lead: { leader: event.leader, term: event.term, why: event.why } });
        return ["chats", `log:${event.conv}`];
      case "chat_gone":
        this.chats.delete(event.conv);
        return ["chats", `log:${event.conv}`];
      case "message":
        return this.#message(event);
      case "accepted":
        return this.#accepted(event);
      case "ack":
        return this.#update(event.conv, event.id, (item) => { item.ack = event.ack; item.wedged = null; });
      case "wedged":
        return this.#update(event.conv, event.id, (item) => (item.wedged = event.why));
      case "failed":
        return this.#update(event.conv, event.id, (item) => (item.failed = event.why));
      case "typing":
        return this.#typing(event);
      default:
        return [];
    }
  }

  // The chat of `conv`, made or updated with `fields`.
  chat(conv, fields = {}) {
    const known = this.chats.get(conv);
    if (known) return Object.assign(known, fields);
    const chat = {
      conv, kind: "dm", title: "", state: "open", unread: new Set(), lastRead: "", items: [], complete: false,
      typing: new Map(), newFrom: null, ...fields,
    };
    this.chats.set(conv, chat);
    return chat;
  }

  insert(chat, item) {
    const same = chat.items.findIndex((known) => known.id === item.id);
    if (same >= 0) {
      chat.items[same] = { ...chat.items[same], ...item };
      return false;
    }
    let at = chat.items.length;
    while (at > 0 && chat.items[at - 1].sort > item.sort) at -= 1;
    chat.items.splice(at, 0, item);
    return true;
  }

  // The last received item, up to which everything can be marked as read.
  lastReceived(chat) {
    return chat.items.findLast((item) => item.kind === "received");
  }

  totalUnread() {
    let total = this.requests.size;
    for (const chat of this.chats.values()) total += chat.unread.size;
    return total;
  }

  #state(event) {
    const current = this.current;
    this.me = event.me;
    this.link = event.link;
    this.people = new Map(event.people.map((person) => [person.user, person]));
    this.requests = new Map(event.requests.map((request) => [request.invite, request]));
    this.listings = new Map(event.listings.map((listing) => [listing.group, listing]));
    // What was loaded before may have a hole now: histories are loaded anew.
    this.chats.clear();
    for (const chat of event.chats) this.chat(chat.conv, { ...chat, unread: new Set(chat.unread) });
    this.current = this.chats.has(current) ? current : null;
    return ["all"];
  }

  #message({ conv, item }) {
    const chat = this.chat(conv);
    const isNew = this.insert(chat, item);
    if (item.kind === "received") {
      chat.typing.delete(item.from);
      if (isNew && item.sort > chat.lastRead) {
        chat.unread.add(item.id);
        chat.newFrom ??= item.id;
      }
    }
    return ["chats", `log:${conv}`];
  }

  // The local echo gets the name and the place that the server gave it.
  #accepted({ conv, txn, item }) {
    const chat = this.chat(conv);
    chat.items = chat.items.filter((known) => known.id !== txn);
    this.insert(chat, item);
    return [`log:${conv}`];
  }

  #update(conv, id, change) {
    const item = this.chats.get(conv)?.items.findLast((known) => known.id === id);
    if (item) change(item);
    return item ? [`log:${conv}`] : [];
  }

  #typing({ conv, user, active }) {
    const chat = this.chats.get(conv);
    if (!chat) return [];
    if (active) chat.typing.set(user, true);
    else chat.typing.delete(user);
    return [`typing:${conv}`];
  }
}
