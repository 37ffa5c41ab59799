// Keeps the page as the service has it: the server renders, this only fetches the page again and swaps its content.
"use strict";

(() => {
  const EVENTS = "api/v1/openrouter/events";
  const CALM_MS = 15000; // ages and counters move without an event
  const POLL_MS = 2000; // where there are no events
  const GATHER_MS = 100; // several events in a burst are one look

  let plots = [];
  let series = "";
  let timer = 0;
  let live = false;
  let looking = false;

  const parts = () => ["scopes", "now", "board"].map((id) => document.getElementById(id)).filter(Boolean);

  function schedule(delay) {
    clearTimeout(timer);
    timer = setTimeout(look, delay);
  }

  async function look() {
    if (looking) return schedule(GATHER_MS);
    looking = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      show(new DOMParser().parseFromString(await answer.text(), "text/html"));
      say(live ? "Live" : "Looking every 2 seconds");
    } catch {
      say("The service does not answer; this is the last known state");
    } finally {
      looking = false;
      schedule(live ? CALM_MS : POLL_MS);
    }
  }

  function show(page) {
    const open = [...document.querySelectorAll("details[open]")].map((found) => found.id);
    for (const part of parts()) {
      const fresh = page.getElementById(part.id);
      // A screen reader announces what changes: an equal headline must stay the same node.
      if (fresh && fresh.innerHTML !== part.innerHTML) part.replaceChildren(...fresh.childNodes);
    }
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    const icon = page.querySelector("link[rel=icon]");
    if (icon) document.querySelector("link[rel=icon]").href = icon.href;
    document.title = page.title;
    localise();
    draw();
  }

  function say(words) {
    document.getElementById("liveness").textContent = words;
  }

  function localise() {
    for (const time of document.querySelectorAll("time[datetime]")) {
      time.title ||= time.textContent;
      time.textContent = new Date(time.dateTime).toLocaleString(undefined, {
        dateStyle: time.dataset.form === "time" ? undefined : "medium",
        timeStyle: "medium",
      });
    }
    count();
  }

  function count() {
    for (const left of document.querySelectorAll("[data-until]")) {
      const seconds = Math.max(0, Math.ceil((Date.parse(left.dataset.until) - Date.now()) / 1000));
      left.textContent = seconds > 90 ? `in ${Math.ceil(seconds / 60)} min` : `in ${seconds} s`;
    }
  }

  function draw() {
    const found = document.getElementById("series").textContent;
    if (found === series && plots.every((plot) => plot.root.isConnected)) return;
    series = found;
    plots.forEach((plot) => plot.destroy());
    const data = JSON.parse(found);
    plots = [...document.querySelectorAll(".plot")].map((place) => plotted(place, data));
  }

  function plotted(place, data) {
    const style = getComputedStyle(document.body);
    const axis = { stroke: style.getPropertyValue("--soft"), grid: { stroke: style.getPropertyValue("--line"), width: 1 } };
    const chosen = data[place.dataset.series];
    const colours = ["--good-fill", "--warn-fill", "--bad-fill"].slice(-chosen.lines.length);
    const unit = chosen.unit;
    return new uPlot(
      {
        width: place.clientWidth,
        height: 190,
        series: [
          { value: (_, at) => (at ? new Date(at * 1000).toISOString().slice(0, 10) : "–") },
          ...chosen.lines.map((label, index) => ({
            label,
            stroke: style.getPropertyValue(colours[index]),
            width: 2,
            points: { show: true, size: 5 },
            value: (_, value) => (value === null || value === undefined ? "–" : `${value} ${unit}`),
          })),
        ],
        axes: [axis, { ...axis, size: 84, values: (_, ticks) => ticks.map((tick) => `${tick} ${unit}`) }],
        scales: { x: { time: true }, y: { range: (_, low, high) => [0, Math.max(1.1 * (high || 0), 1)] } },
        tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC"),
      },
      [chosen.at, ...chosen.values],
      place,
    );
  }

  function listen() {
    const events = new EventSource(EVENTS + location.search);
    const wake = () => schedule(GATHER_MS);
    events.onopen = () => {
      live = true;
      wake();
    };
    events.onerror = () => {
      live = false;
      schedule(POLL_MS);
    };
    events.onmessage = wake;
    events.addEventListener("state", wake);
    addEventListener("pagehide", () => events.close());
  }

  addEventListener("resize", () => plots.forEach((plot) => plot.setSize({ width: plot.root.parentNode.clientWidth, height: 190 })));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    series = "";
    draw();
  });
  setInterval(count, 1000);
  localise();
  draw();
  listen();
})();
