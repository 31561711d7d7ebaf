"use strict";
// Keys press the buttons and links that have them as data-key. Forms are sent in the background, and the answer of the
// server replaces the content of the page. Without this file, all but Blink and Keys work.

const main = () => document.getElementById("main");
let sending = false;
let blinking = 0;

function show(text, address) {
  const page = new DOMParser().parseFromString(text, "text/html");
  const fresh = page.getElementById("main");
  if (!fresh) { location.assign(address); return; }
  stopBlinking();
  main().replaceWith(fresh);
  document.title = page.title;
  history.replaceState(null, "", address);
  fresh.focus({ preventScroll: true });
  announce(fresh);
  prefetch();
}

function announce(content) {
  const said = content.querySelector("[data-said], [role=alert]");
  const progress = content.querySelector(".progress span");
  document.getElementById("status").textContent = [said, progress].map((one) => one ? one.textContent : "").join(" ");
}

function prefetch() {
  for (const one of main().querySelectorAll("[data-prefetch]")) new Image().src = one.dataset.prefetch;
}

async function send(form, button) {
  if (sending) return;
  sending = true;
  main().setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(form.action, {
      method: "POST", body: new URLSearchParams(new FormData(form, button)), credentials: "same-origin",
    });
    show(await answer.text(), answer.redirected ? answer.url : location.href);
  } catch {
    main().removeAttribute("aria-busy");
    alert("imagelake does not answer: it was stopped. This decision was not recorded. Start it again with: imagelake review LAKE");
  } finally {
    sending = false;
  }
}

function stopBlinking() {
  clearInterval(blinking);
  blinking = 0;
}

function blink(button) {
  const pair = main().querySelector("[data-pair]");
  const on = !blinking;
  button.setAttribute("aria-pressed", String(on));
  pair.classList.toggle("blinking", on);
  pair.classList.remove("other");
  stopBlinking();
  if (on) blinking = setInterval(() => pair.classList.toggle("other"), 450);
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || form.getAttribute("action") === "/reload") return;
  event.preventDefault();
  send(form, event.submitter);
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button && "blink" in button.dataset) blink(button);
  if (button && "help" in button.dataset) document.getElementById("help").showModal();
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || document.getElementById("help").open) return;
  const field = event.target.closest("input:not([type=radio]):not([type=checkbox]), textarea, select");
  if (field) {
    if (event.key === "Escape") main().focus();
    return;
  }
  // Arrows move between radio buttons that have the focus, as everywhere.
  if (event.target.type === "radio" && event.key.startsWith("Arrow")) return;
  const wanted = Array.from(document.querySelectorAll("[data-key]")).find((one) => one.dataset.key === event.key);
  if (!wanted || wanted.disabled || wanted.closest("fieldset:disabled")) return;
  event.preventDefault();
  if (wanted.matches("input:not([type=radio])")) { wanted.focus(); wanted.select(); } else wanted.click();
});

prefetch();
