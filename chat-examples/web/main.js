// Starts the page: login, the connection, keys, and which view redraws for which event.

import { Conversation } from "./conversation.js";
import { $, attempt, toast } from "./dom.js";
import { Model } from "./model.js";
import { Net } from "./net.js";
import { Sidebar } from "./sidebar.js";

const model = new Model();
const net = new Net();
const sidebar = new Sidebar(model, net, open);
const conversation = new Conversation(model, net, close);
let serverDown = null;
let bannerTimer = null;

function open(conv) {
  model.current = conv;
  model.chat(conv);
  $("app").classList.add("open");
  $("conversation").hidden = false;
  $("empty").hidden = true;
  render();
  conversation.show();
  $("draft").focus();
}

function close() {
  const chat = model.chats.get(model.current);
  if (chat) chat.newFrom = null;
  model.current = null;
  $("app").classList.remove("open", "with-panel", "show-panel");
  $("conversation").hidden = true;
  $("panel").hidden = true;
  $("empty").hidden = false;
  $("sidebar").focus({ preventScroll: true });
  render();
}

function render() {
  sidebar.render();
  const unread = model.totalUnread();
  document.title = unread ? `(${unread}) Chat` : "Chat";
  banner();
}

// One banner for both hops: page to server, server to broker.
function banner() {
  clearTimeout(bannerTimer);
  const down = serverDown ?? (model.me && model.link.state === "disconnected"
    ? { retryAt: model.link.retry_at } : null);
  const failed = model.me && model.link.state === "failed";
  $("banner").hidden = !down && !failed;
  if (failed) {
    $("banner").setAttribute("role", "alert");
    $("banner").textContent = `Not connected: ${model.link.reason}`;
    return;
  }
  if (!down) {
    $("banner").removeAttribute("role");
    return;
  }
  const seconds = Math.max(0, Math.ceil((down.retryAt - Date.now()) / 1000));
  const retry = document.createElement("button");
  retry.type = "button";
  retry.textContent = "Try now";
  retry.onclick = () => (serverDown ? net.connect() : attempt(() => net.call("reconnect")));
  $("banner").setAttribute("role", "alert");
  $("banner").replaceChildren(
    `No connection. What you write is kept. Next try in ${seconds} s.`, retry);
  bannerTimer = setTimeout(banner, 1000);
}

async function login(name) {
  try {
    await net.call("login", { name });
    sessionStorage.setItem("name", name);
    $("login").hidden = true;
    $("app").hidden = false;
    $("me-name").textContent = model.me?.user ?? name;
    if (model.current) open(model.current);
    else close();
  } catch (error) {
    sessionStorage.removeItem("name");
    $("login").hidden = false;
    $("login-error").textContent = error.message;
  }
}

net.addEventListener("open", () => {
  serverDown = null;
  banner();
  const name = sessionStorage.getItem("name");
  if (name) login(name);
  else {
    $("login").hidden = false;
    $("login-name").focus();
  }
});

net.addEventListener("down", ({ detail }) => {
  serverDown = detail;
  banner();
});

net.addEventListener("event", ({ detail }) => {
  if (detail.t === "notice") toast(detail.text);
  if (detail.t === "key_changed") {
    if (confirm(`${detail.user} uses a new device. Trust it? If you are not sure, ask them first.`)) {
      attempt(() => net.call("trust", { user: detail.user, device: detail.device }));
    }
    return;
  }
  const watched = detail.t === "message" && conversation.isWatched(detail.conv);
  const changed = model.apply(detail);
  if (watched) model.chats.get(detail.conv).newFrom = null;
  const here = model.current;
  if (changed.includes("all")) {
    $("me-name").textContent = model.me.user;
    if (here && !model.current) close();
    if (here && model.current) conversation.show();
  }
  if (here && changed.includes(`log:${here}`)) {
    conversation.renderLog();
    conversation.markRead();
  }
  if (changed.includes(`typing:${here}`)) conversation.renderTyping();
  if (here && model.current) conversation.renderHead();
  render();
});

$("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  $("login-error").textContent = "";
  login($("login-name").value.trim());
});

$("logout").addEventListener("click", async () => {
  await attempt(() => net.call("logout"));
  sessionStorage.removeItem("name");
  location.reload();
});

$("me-status").addEventListener("change", (event) =>
  attempt(() => net.call("status", { status: event.target.value, text: "" })));

const theme = localStorage.getItem("theme");
if (theme) document.documentElement.dataset.theme = theme;
$("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("theme", next);
});

function step(by, fits = () => true) {
  const order = sidebar.order().filter((chat) => fits(chat) || chat.conv === model.current);
  if (!order.length) return;
  const at = order.findIndex((chat) => chat.conv === model.current);
  open(order[(at + by + order.length) % order.length].conv);
}

document.addEventListener("keydown", (event) => {
  if ($("app").hidden) return;
  const writing = event.target.matches("input, textarea, select");
  if ((event.ctrlKey || event.metaKey) && event.key === "k") {
    event.preventDefault();
    $("filter").focus();
  } else if (event.altKey && event.key === "ArrowUp") {
    event.preventDefault();
    step(-1);
  } else if (event.altKey && event.key === "ArrowDown") {
    event.preventDefault();
    step(1);
  } else if (event.altKey && event.key.toLowerCase() === "a") {
    event.preventDefault();
    step(1, (chat) => chat.unread.size > 0);
  } else if (event.key === "Escape" && model.current && !$("help").open) {
    close();
  } else if (event.key === "?" && !writing) {
    $("help").showModal();
  }
});

addEventListener("focus", () => {
  conversation.markRead();
  render();
});

net.connect();
