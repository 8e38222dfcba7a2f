// <darkroom-scaled>: the size that img2img's picture gets from the scale beside it.

class Scaled extends HTMLElement {
  connectedCallback() {
    this.seen = ({ detail }) => { this.size = detail; this.show(); };
    document.addEventListener("darkroom:picture", this.seen);
    document.addEventListener("darkroom:scale", this.rescaled = () => this.show());
    this.show();
  }

  disconnectedCallback() {
    document.removeEventListener("darkroom:picture", this.seen);
    document.removeEventListener("darkroom:scale", this.rescaled);
  }

  show() {
    const scale = Number(document.querySelector("#img2img_scale input[type=number]")?.value);
    const side = (length) => Math.floor(Math.trunc(length * scale) / 8) * 8;
    this.textContent = this.size && scale
      ? `From ${this.size.width}×${this.size.height} to ${side(this.size.width)}×${side(this.size.height)}`
      : "There is no picture yet.";
  }
}

export function scaled() {
  // Gradio tells of a change before its control shows it.
  requestAnimationFrame(() => document.dispatchEvent(new Event("darkroom:scale")));
}

customElements.define("darkroom-scaled", Scaled);
