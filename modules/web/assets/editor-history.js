// What can be undone: steps of a layer, each a map from tile to what was there. The oldest go when memory is used up.

const BUDGET = 256 * 1024 * 1024;

export class History {
  constructor(budget = BUDGET) {
    this.budget = budget;
    this.done = [];
    this.undone = [];
  }

  add(step) {
    this.done.push(step);
    this.undone = [];
    while (this.done.length > 1 && this.size() > this.budget) this.done.shift();
  }

  // The step to exchange next with the layer, or undefined.
  undo() {
    return turned(this.done, this.undone);
  }

  redo() {
    return turned(this.undone, this.done);
  }

  // Bytes held: four for each pixel of a tile; where nothing was painted there is none.
  size() {
    return [...this.done, ...this.undone].reduce((sum, step) => sum + bytes(step), 0);
  }
}

function turned(from, to) {
  const step = from.pop();
  if (step) to.push(step);
  return step;
}

function bytes(step) {
  let sum = 0;
  for (const tile of step.values()) if (tile) sum += tile.width * tile.height * 4;
  return sum;
}
