const questions = [...document.querySelectorAll(".question")];
const choices = ["comparison", "category", "outcome"];
function filter() {
  const words = document.getElementById("words").value.trim().toLowerCase();
  const chosen = Object.fromEntries(choices.map((name) => [name, document.getElementById(name).value]));
  let left = 0;
  for (const each of questions) {
    const fits = choices.every((name) => !chosen[name] || each.dataset[name] === chosen[name])
      && (!words || each.textContent.toLowerCase().includes(words));
    each.hidden = !fits;
    left += fits;
  }
  document.getElementById("count").textContent = `${left} of ${questions.length}`;
  document.getElementById("none").hidden = left > 0;
}
document.getElementById("filters").addEventListener("input", filter);
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
filter();
