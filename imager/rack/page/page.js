// Keeps the page up to date: the server sends the text of each part that has changed, escaped as in
// the page itself. A part is what is inside the element of that name.
"use strict";

const AGAIN_MS = 5000;
const link = document.getElementById("link");
let number = document.body.dataset.number;

function show(parts) {
  for (const [name, text] of Object.entries(parts)) {
    const part = name === "main" ? document.querySelector("main") : document.getElementById(name);
    if (part !== null) part.innerHTML = text;
  }
}

function say(words) {
  if (link.textContent !== words) link.textContent = words;
}

function listen() {
  const events = new EventSource(`events?since=${encodeURIComponent(number)}`);
  events.onopen = () => say("This page keeps itself up to date.");
  events.onmessage = (event) => {
    number = event.lastEventId;
    show(JSON.parse(event.data));
  };
  events.onerror = () => {
    say("The connection is lost: what is shown is old. It is tried again.");
    events.close();
    setTimeout(listen, AGAIN_MS);
  };
}

listen();
