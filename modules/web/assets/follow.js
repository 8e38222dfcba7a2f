// Following a job: what it says while it runs, in words and as a bar, and what it came to.

import { address, attempt, call, duration, text } from "./api.js";

const ENDED = ["finished", "failed", "cancelled", "interrupted"];
const STOPPED = { cancelled: "Cancelled.", interrupted: "Stopped." };

// Calls `show` with the job, now and whenever it comes forward; answers what ends that.
export function follow(id, show) {
  const source = new EventSource(address(`darkroom/page/jobs/${id}/events`));
  for (const kind of ["progress", "image", "ended"]) {
    source.addEventListener(kind, (event) => {
      const job = JSON.parse(event.data);
      if (ended(job)) source.close();
      show(job);
    });
  }
  return () => source.close();
}

export function ended(job) {
  return ENDED.includes(job.state);
}

// Shows in `place` how far a job is: built once, so that its button can be pressed while the news come in.
export function showProgress(place, job) {
  if (!place.querySelector(":scope > .progress")) {
    place.innerHTML = `<div class="progress"><div class="bar" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100"><i></i></div>
      <div class="state-row"><div class="state" aria-live="polite"></div><button type="button" class="button" data-do="cancel">Cancel</button></div></div>`;
  }
  const { fraction = 0, phase = "", eta = null } = job.progress || {};
  const percent = Math.round(fraction * 100);
  const bar = place.querySelector(".bar");
  bar.classList.toggle("unknown", job.state === "queued" || !fraction);
  bar.setAttribute("aria-valuenow", percent);
  bar.firstElementChild.style.width = `${percent}%`;
  place.querySelector(".state").textContent = job.state === "queued" ? "Waiting in the queue"
    : [phase, fraction ? `${percent}%` : "", eta === null ? "" : `${duration(eta)} left`].filter(Boolean).join(" · ") || "Starting";
}

export function cancel(id) {
  return attempt(() => call(`jobs/${id}/cancel`, {}));
}

// Why a job that has ended has no result: its failure, or that it was stopped; empty where it has one.
export function endHtml(job, words = STOPPED) {
  return failureHtml(job.failure) || (words[job.state] ? `<p class="hint">${words[job.state]}</p>` : "");
}

export function warningsHtml(job) {
  return job.warnings.length ? `<ul class="warnings">${job.warnings.map((warning) => `<li>${text(warning)}</li>`).join("")}</ul>` : "";
}

export function failureHtml(failure) {
  return failure ? `<div class="failure" role="alert"><b>${text(failure.message)}</b>${failure.hint ? `<p>${text(failure.hint)}</p>` : ""}</div>` : "";
}
