// The connection to the demo server: JSON text frames over one WebSocket, calls answered by id,
// reconnect with growing, jittered waits. Emits "open", "event" and "down".

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15000;

export class Net extends EventTarget {
  #socket = null;
  #calls = new Map();
  #nextId = 1;
  #attempt = 0;
  #timer = null;
  #stopped = false;

  connect() {
    clearTimeout(this.#timer);
    this.#stopped = false;
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws`);
    this.#socket = socket;
    socket.onopen = () => {
      this.#attempt = 0;
      this.dispatchEvent(new CustomEvent("open"));
    };
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    socket.onclose = () => {
      if (socket === this.#socket) this.#lost();
    };
  }

  // Closes for good, until connect().
  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#socket?.close();
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  // Asks the server; resolves with its answer, rejects with an Error whose message says what to do.
  call(kind, fields = {}) {
    if (!this.isOpen) return Promise.reject(new Error("no connection; try again when it is back"));
    const id = this.#nextId++;
    this.#socket.send(JSON.stringify({ t: kind, id, ...fields }));
    return new Promise((resolve, reject) => this.#calls.set(id, { resolve, reject }));
  }

  #receive(message) {
    const call = this.#calls.get(message.id);
    if (call && (message.t === "ok" || message.t === "error")) {
      this.#calls.delete(message.id);
      if (message.t === "ok") call.resolve(message);
      else call.reject(Object.assign(new Error(message.text), { code: message.code }));
      return;
    }
    this.dispatchEvent(new CustomEvent("event", { detail: message }));
  }

  #lost() {
    for (const { reject } of this.#calls.values()) reject(new Error("the connection was lost"));
    this.#calls.clear();
    if (this.#stopped) return;
    this.#attempt += 1;
    const ceiling = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (this.#attempt - 1));
    const wait = ceiling * (0.5 + Math.random() / 2);
    this.#timer = setTimeout(() => this.connect(), wait);
    this.dispatchEvent(new CustomEvent("down", { detail: { retryAt: Date.now() + wait } }));
  }
}
