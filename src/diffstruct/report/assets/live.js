// While the run goes on: ask the server that the page came from what is new.

const EVERY = 2000; // milliseconds

async function poll(known) {
  let next = known;
  let ended = false;
  try {
    const answer = await fetch("record.json", { headers: known ? { "If-None-Match": known } : {}, cache: "no-store" });
    if (answer.status === 200) {
      const data = await answer.json();
      next = answer.headers.get("ETag");
      show(data, true);
    } else if (answer.status !== 304) {
      throw new Error(`the server answers ${answer.status}`);
    }
    ended = run().status !== "running";
  } catch (error) {
    ended = true;
    $("#status").textContent += ` (no longer followed: ${error.message})`;
  }
  if (!ended) setTimeout(() => whenSeen(() => poll(next)), EVERY);
}

// Nothing is asked for a page that nobody sees.
function whenSeen(ask) {
  if (!document.hidden) ask();
  else document.addEventListener("visibilitychange", ask, { once: true });
}
