// Says when the service stops answering; the polling itself goes on, so the note leaves by itself.
"use strict";
const away = () => document.getElementById("away");
for (const name of ["htmx:sendError", "htmx:timeout", "htmx:responseError"]) {
  document.addEventListener(name, () => { away().hidden = false; });
}
document.addEventListener("htmx:afterOnLoad", (event) => {
  if (event.detail.xhr.status < 400) away().hidden = true;
});
// A hidden tab asks for nothing.
document.addEventListener("htmx:confirm", (event) => {
  if (document.hidden) event.preventDefault();
});
