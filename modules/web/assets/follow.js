// Following a job: what it says while it runs, in words and as a bar, and what it came to.

import { address, duration, text } from "./api.js";

const ENDED = ["finished", "failed", "cancelled", "interrupted"];

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

export function progressHtml(job) {
  const { fraction = 0, phase = "", eta = null } = job.progress || {};
  const percent = Math.round(fraction * 100);
  const state = job.state === "queued" ? "Waiting in the queue"
    : [phase, fraction ? `${percent}%` : "", eta === null ? "" : `${duration(eta)} left`].filter(Boolean).join(" · ") || "Starting";
  return `<div class="progress"><div class="bar ${job.state === "queued" || !fraction ? "unknown" : ""}" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" aria-valuenow="${percent}"><i style="width:${percent}%"></i></div>
    <div class="state-row"><div class="state" aria-live="polite">${text(state)}</div><button type="button" class="button" data-do="cancel">Cancel</button></div></div>`;
}

export function failureHtml(failure) {
  return failure ? `<div class="failure" role="alert"><b>${text(failure.message)}</b>${failure.hint ? `<p>${text(failure.hint)}</p>` : ""}</div>` : "";
}
