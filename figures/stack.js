// The panels of a figure under one another, as a file of its own.
(name) => {
    const root = document.getElementById(`kdft-${name}`), space = "http://www.w3.org/2000/svg";
    const add = (parent, tag, attributes, content = "") => {
        const element = parent.appendChild(document.createElementNS(space, tag));
        for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
        element.textContent = content;
        return element;
    };
    const width = 440, whole = document.createElementNS(space, "svg"), style = add(whole, "style", {});
    let y = 0;
    for (const panel of root.querySelectorAll("svg")) {
        const title = panel.previousElementSibling.textContent;
        add(whole, "text", { y: y + 22, "font-weight": 700, fill: "var(--text)" }, title);
        const marks = add(whole, "g", { transform: `translate(0 ${y + 34})` });
        marks.append(...panel.cloneNode(true).children);
        y += 34 + Number(panel.getAttribute("height"));
    }
    for (const mark of whole.querySelectorAll("[data-key]")) mark.removeAttribute("data-key");
    const colors = new Set(whole.innerHTML.match(/--[a-z]+/g)), said = getComputedStyle(root);
    style.textContent = `svg{${Array.from(colors, (name) => `${name}:${said.getPropertyValue(name)}`).join(";")}}`;
    const size = { viewBox: `-8 0 ${width + 16} ${y + 8}`, width: width + 16, height: y + 8 };
    const font = { "font-family": "Helvetica, Arial, sans-serif", "font-size": 14 };
    for (const [name, value] of Object.entries({ ...size, ...font })) whole.setAttribute(name, value);
    return new XMLSerializer().serializeToString(whole);
}
