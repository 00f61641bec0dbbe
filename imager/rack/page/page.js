// Keeps the page up to date: the server sends the text of each part that has changed, escaped as in
// the page itself. A part is what is inside the element of that name. The server says something
// every five seconds at least, so that a connection which is gone is noticed.
"use strict";

const AGAIN_MS = 5000;
const SLOW_MS = 12000;
const GONE_MS = 60000;
const link = document.getElementById("link");
let number = document.body.dataset.number;
let events = null;
let heard = Date.now();
let began = heard;

function show(parts) {
  for (const [name, text] of Object.entries(parts)) {
    const part = name === "main" ? document.querySelector("main") : document.getElementById(name);
    if (part !== null) fill(part, text);
  }
}

// Who goes from link to link with the keyboard stays at the same one.
function fill(part, text) {
  const held = part.contains(document.activeElement) ? document.activeElement.hash : undefined;
  part.innerHTML = text;
  if (held) [...part.querySelectorAll("a")].find((a) => a.hash === held)?.focus({ preventScroll: true });
}

function say(words, lost) {
  if (link.textContent !== words) link.textContent = words;
  document.body.classList.toggle("lost", lost);
}

function good() {
  heard = Date.now();
  say("This page keeps itself up to date.", false);
}

function shown() {
  return `what is shown is of ${new Date(heard).toTimeString().slice(0, 8)}.`;
}

function listen() {
  began = Date.now();
  events = new EventSource(`events?since=${encodeURIComponent(number)}`);
  events.onopen = good;
  events.addEventListener("alive", good);
  events.onmessage = (event) => {
    number = event.lastEventId;
    show(JSON.parse(event.data));
    good();
  };
  events.onerror = again;
}

async function again() {
  events.close();
  events = null;
  say(`The connection is lost: ${shown()} It is tried again.`, true);
  setTimeout(listen, AGAIN_MS);
  const answer = await fetch("page.js").catch(() => null);
  if (answer?.status === 403) {
    say(`This address is not valid any more: ${shown()} Open the one that rack serve prints now.`, true);
  }
}

setInterval(() => {
  if (events === null) return;
  const quiet = Date.now() - Math.max(heard, began);
  if (quiet > GONE_MS) again();
  else if (quiet > SLOW_MS && events.readyState === EventSource.OPEN) say(`The connection is slow: ${shown()}`, true);
}, 1000);

listen();
