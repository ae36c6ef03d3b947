/* The dashboard in the browser: theme, time zone, shortcuts, selection, dialogs, copy, and live refresh. The pages work without it. */
(() => {
  "use strict";
  const root = document.documentElement, $ = (s, e = document) => e.querySelector(s), $$ = (s, e = document) => [...e.querySelectorAll(s)];
  const store = { get: k => { try { return localStorage.getItem("pgflow." + k); } catch { return null; } }, set: (k, v) => { try { localStorage.setItem("pgflow." + k, v); } catch { /* private mode */ } } };

  const themes = ["auto", "light", "dark"], names = { auto: "automatic", light: "light", dark: "dark" };
  const theme = t => { t === "auto" ? delete root.dataset.theme : (root.dataset.theme = t); $("[data-theme-toggle]")?.setAttribute("aria-label", "Theme: " + names[t]); };
  theme(store.get("theme") || "auto"); /* before the first paint: this file is loaded in the head */
  const nextTheme = () => { const t = themes[(themes.indexOf(store.get("theme") || "auto") + 1) % 3]; store.set("theme", t); theme(t); say("Theme: " + names[t]); };

  const say = text => { const t = document.createElement("div"), s = document.createElement("div"); t.className = "toast"; s.textContent = text; t.append(document.createElement("span"), s); $(".toasts")?.append(t); fade(t); };
  const fade = t => { if (!t.matches(".s-failed, .s-retrying")) setTimeout(() => t.remove(), 4000); };

  const zone = z => {
    $$("time[data-time]").forEach(t => { t.dataset.utc ??= t.textContent; t.textContent = z === "UTC" ? t.dataset.utc : new Date(t.dateTime).toLocaleTimeString([], { hour12: false, hour: "2-digit", minute: "2-digit", second: "2-digit" }); });
    $$("time[title]").forEach(t => { t.dataset.full ??= t.title; t.title = z === "UTC" ? t.dataset.full : t.dataset.full + ", " + new Date(t.dateTime).toLocaleString() + " local"; });
    const b = $("[data-zone]"); if (b) { b.textContent = z; b.setAttribute("aria-label", z === "UTC" ? "Time zone: UTC. Switch to local time" : "Time zone: local. Switch to UTC"); }
  };
  const nextZone = () => { const z = (store.get("zone") || "UTC") === "UTC" ? "Local" : "UTC"; store.set("zone", z); zone(z); };

  const copy = async text => {
    try { await navigator.clipboard.writeText(text); } catch { /* the clipboard needs https */
      const a = document.createElement("textarea"); a.value = text; a.className = "sr"; document.body.append(a); a.select(); document.execCommand("copy"); a.remove();
    }
    say("Copied");
  };

  /* Selection: the rows of the table above a bulk bar. */
  const boxes = () => $$("tbody .tick-cell input");
  const select = () => {
    const all = boxes(), on = all.filter(b => b.checked), bar = $("[data-bulk]"), head = $("thead .tick-cell input");
    all.forEach(b => b.closest("tr").classList.toggle("is-selected", b.checked));
    if (head) { head.checked = on.length > 0 && on.length === all.length; head.indeterminate = on.length > 0 && on.length < all.length; }
    if (bar) { bar.hidden = on.length === 0; $("[data-count]", bar).textContent = $("[data-all-matching]", bar)?.getAttribute("aria-pressed") === "true" ? "All matching" : on.length; }
    live();
  };
  const clear = () => { boxes().forEach(b => { b.checked = false; }); $("[data-all-matching]")?.setAttribute("aria-pressed", "false"); select(); };
  const bulkUrl = b => b.dataset.bulkAct + "?q=" + encodeURIComponent($("[data-all-matching]")?.getAttribute("aria-pressed") === "true" ? b.dataset.all : (b.dataset.key || "run:") + boxes().filter(x => x.checked).map(x => x.value).join(","));

  /* Live: an event says that something has changed, and the page is fetched again. Never while a person types, selects or decides. */
  let stale = false, due = 0, next = 0, source = null, lost = "";
  const chosen = () => store.get("refresh") || "Live";
  const busy = () => boxes().some(x => x.checked) || $("dialog[open], main details.menu[open]") || document.activeElement?.matches("main input:not([type=checkbox]), main textarea, main select") || String(getSelection()).length > 0;
  const live = () => {
    const b = $(".live"); if (!b) return;
    const off = chosen() === "Off", held = !off && !!busy();
    b.classList.toggle("is-off", off); b.classList.toggle("is-paused", held || !!lost);
    const text = lost || (held ? "Paused" : chosen()); $("span", b).textContent = text; b.setAttribute("aria-label", "Refresh: " + text);
    $$("[data-refresh]").forEach(r => r.setAttribute("aria-pressed", r.dataset.refresh === chosen()));
    if (stale && !held && !off && !document.hidden) soon();
  };
  const soon = () => { stale = true; if (due) return; due = setTimeout(() => { due = 0; if (busy() || document.hidden || chosen() === "Off") { live(); return; } refresh(); }, Math.max(50, next - Date.now())); };
  const refresh = () => { stale = false; const began = Date.now(); next = began + 1000; if (!window.htmx) { location.reload(); return; } const m = $("#main"); m.addEventListener("htmx:afterRequest", () => { next = Date.now() + Math.max(750, 4 * (Date.now() - began)); }, { once: true }); htmx.trigger(m, "pgflow:refresh"); };
  const listen = () => {
    source?.close(); source = null; clearInterval(listen.timer);
    const mode = chosen(), every = { "5 s": 5000, "30 s": 30000 }[mode];
    if (every) listen.timer = setInterval(soon, every);
    if (mode !== "Live" || !document.body.dataset.live || !$("#main")?.hasAttribute("hx-get")) return;
    source = new EventSource(document.body.dataset.live); let first = true;
    source.addEventListener("change", () => { if (first) { first = false; return; } soon(); });
    const poll = () => { clearInterval(listen.timer); listen.timer = setInterval(soon, 5000); };
    source.addEventListener("full", () => { source.close(); poll(); });
    source.addEventListener("hello", () => clearInterval(listen.timer));
    source.addEventListener("error", poll);
  };

  /* Change what is shown into what was fetched, in place: focus, scroll positions and what was opened or toggled stay. */
  const KEEP = [["open", "details"], ["class", "#graph, tbody tr"], ["aria-pressed", "[data-toggle]"], ["hidden", "[data-bulk]"]];
  const kept = (e, name) => KEEP.some(([a, s]) => a === name && e.matches(s));
  const morph = (from, to) => {
    if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName) { from.replaceWith(to.cloneNode(true)); return; }
    if (from.nodeType !== 1) { if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue; return; }
    if (from.isEqualNode(to)) return;
    if (from.nodeName === "svg") { from.replaceWith(to.cloneNode(true)); return; }
    [...from.attributes].forEach(a => { if (!to.hasAttribute(a.name) && !kept(from, a.name)) from.removeAttribute(a.name); });
    [...to.attributes].forEach(a => { if (from.getAttribute(a.name) !== a.value && !kept(from, a.name)) from.setAttribute(a.name, a.value); });
    const byId = new Map([...from.children].filter(c => c.id).map(c => [c.id, c])); let at = from.firstChild;
    [...to.childNodes].forEach(n => {
      const same = n.id && byId.get(n.id);
      if (same) { if (same !== at) from.insertBefore(same, at); else at = at.nextSibling; morph(same, n); return; }
      if (at && !(at.id && at.nodeType === 1) && !n.id) { const after = at.nextSibling; morph(at, n); at = after; return; }
      from.insertBefore(n.cloneNode(true), at);
    });
    while (at) { const after = at.nextSibling; at.remove(); at = after; }
  };
  const extend = () => {
    htmx.defineExtension("morph", { isInlineSwap: s => s === "morph", handleSwap: (s, target, fragment) => { if (s !== "morph") return false; const to = fragment.firstElementChild || fragment; morph(target, to.id === target.id ? to : fragment); return [target]; } });
    document.addEventListener("htmx:beforeSwap", e => { /* a refresh that failed leaves the page as it is, and says since when */
      if (e.detail.requestConfig.triggeringEvent?.type !== "pgflow:refresh") return;
      const ok = e.detail.xhr.status < 500; lost = ok ? "" : lost || "Stale since " + new Date().toLocaleTimeString([], { hour12: false });
      if (!ok) e.detail.shouldSwap = false; live();
    });
    document.addEventListener("htmx:sendError", () => { lost ||= "Stale since " + new Date().toLocaleTimeString([], { hour12: false }); live(); });
    document.addEventListener("htmx:afterSwap", e => { const t = e.detail.target; if (t.id === "dialog") { if (!t.open && t.firstElementChild) t.showModal(); ($("[aria-invalid]", t) || $("[autofocus]", t))?.focus(); } if (t.matches(".toasts")) $$(".toast", t).forEach(fade); if (t.id === "main") zone(store.get("zone") || "UTC"); live(); });
    document.addEventListener("pgflow:done", () => { $("#dialog").close(); clear(); refresh(); });
  };

  const open = id => { const d = document.getElementById(id); if (d && !d.open) { d.showModal(); live(); } };
  document.addEventListener("click", e => {
    const hit = s => e.target.closest(s); let b;
    $$("details.menu[open]").forEach(m => { if (!m.contains(e.target) || hit("[data-copy], .menu-list a")) m.open = false; });
    if (hit("[data-theme-toggle]")) nextTheme();
    else if (hit("[data-zone]")) nextZone();
    else if ((b = hit("[data-copy]"))) copy(b.dataset.copy);
    else if ((b = hit("[data-open]"))) { e.preventDefault(); open(b.dataset.open); }
    else if ((b = hit("[data-close]"))) { const d = b.closest("dialog, .toast"); if (d?.matches("dialog")) d.close(); else if (d) d.remove(); else history.back(); }
    else if (hit("[data-clear]")) clear();
    else if ((b = hit("[data-all-matching]"))) { b.setAttribute("aria-pressed", b.getAttribute("aria-pressed") !== "true"); select(); }
    else if ((b = hit("[data-bulk-act]"))) { e.preventDefault(); htmx.ajax("GET", bulkUrl(b), { target: "#dialog", swap: "innerHTML" }); }
    else if ((b = hit("[data-suggest]"))) { const i = $(".filter input"); i.value = (i.value.trim() ? i.value.trim() + " " : "") + b.dataset.suggest; i.focus(); }
    else if ((b = hit("[data-toggle]"))) { const on = $(b.dataset.on).classList.toggle(b.dataset.toggle); b.setAttribute("aria-pressed", on); }
    else if ((b = hit("[data-refresh]"))) { store.set("refresh", b.dataset.refresh); b.closest("details").open = false; listen(); live(); }
    else if (hit("[data-save-view]")) { const all = JSON.parse(store.get("views") || "[]"); all.push(location.search); store.set("views", JSON.stringify(all.slice(-20))); views(); say("View saved"); }
    else if (e.target.matches("dialog")) e.target.close();
  });
  document.addEventListener("change", e => {
    if (e.target.matches("thead .tick-cell input")) boxes().forEach(b => { b.checked = e.target.checked; });
    if (e.target.matches(".tick-cell input")) select();
    if (e.target.matches("[data-reload]")) htmx.ajax("GET", e.target.dataset.reload + "?" + e.target.name + "=" + encodeURIComponent(e.target.value), { target: "#dialog", swap: "innerHTML" });
  });
  document.addEventListener("submit", e => { const i = $("input[data-keeps]", e.target); if (i) { i.value = (i.dataset.keeps + " " + i.value).trim(); i.removeAttribute("data-keeps"); } });
  ["focusin", "selectionchange", "visibilitychange", "toggle"].forEach(n => document.addEventListener(n, () => live(), true)); document.addEventListener("focusout", () => setTimeout(live)); document.addEventListener("close", live, true);
  const views = () => { const m = $("[data-views]"); if (!m) return; $$("[data-view]", m).forEach(a => a.remove()); JSON.parse(store.get("views") || "[]").forEach(q => { const a = document.createElement("a"); a.href = location.pathname + q; a.dataset.view = ""; a.textContent = new URLSearchParams(q).get("q") || "All"; m.append(a); }); };

  let after = "", at = -1;
  const move = by => { const rows = $$("[data-rows] tbody tr"); if (!rows.length) return; rows[at]?.classList.remove("at"); at = Math.min(rows.length - 1, Math.max(0, at + by)); rows[at].classList.add("at"); $("a", rows[at])?.focus({ preventScroll: true }); rows[at].scrollIntoView({ block: "nearest" }); };
  document.addEventListener("keydown", e => {
    if (e.key === "Escape") { $$("details.menu[open]").forEach(m => { m.open = false; $("summary", m).focus(); }); if (!$("dialog[open]") && boxes().some(b => b.checked)) clear(); return; }
    if (e.key === "Backspace" && e.target.matches("input[data-keeps]") && !e.target.value) { e.target.value = e.target.dataset.keeps; delete e.target.dataset.keeps; $$(".filter .chip").forEach(c => c.remove()); e.preventDefault(); return; }
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.matches("input:not([type=checkbox]), textarea, select") || $("dialog[open]")) return;
    const row = $$("[data-rows] tbody tr")[at], press = s => $(s)?.click();
    if (after === "g") { const to = $(`.nav a[data-key="${CSS.escape(e.key)}"]`); after = ""; if (to) { location.href = to.href; return; } }
    after = e.key === "g" ? "g" : "";
    ({
      "?": () => open("keys"), "/": () => { e.preventDefault(); ($(".filter input") || $("#find"))?.focus(); }, t: nextTheme, z: nextZone, r: refresh,
      j: () => move(1), k: () => move(-1), x: () => { const b = row && $("input", row); if (b) { b.checked = !b.checked; select(); } },
      a: () => { boxes().forEach(b => { b.checked = true; }); select(); }, c: () => press("[data-toggle=is-critical]"), f: () => press("[data-toggle=is-fit]"),
      1: () => press(".tabs a:nth-child(1)"), 2: () => press(".tabs a:nth-child(2)"), 3: () => press(".tabs a:nth-child(3)"),
    })[e.key]?.();
  });
  document.addEventListener("DOMContentLoaded", () => {
    theme(store.get("theme") || "auto"); zone(store.get("zone") || "UTC"); select(); views(); if (window.htmx) extend(); listen(); $$(".toast").forEach(fade);
    $$(".nav, .tabs").forEach(n => { const c = $("[aria-current]", n); if (c) n.scrollLeft = c.offsetLeft - n.offsetLeft - 48; });
    const g = $(".graph"), c = g && $("[aria-current]", g); if (c) g.scrollLeft += c.getBoundingClientRect().left - g.getBoundingClientRect().left - g.clientWidth / 2 + 68;
  });
})();
