// Masks as rows of bytes: grown and shrunk by a disc, feathered by a Gaussian. Nothing here knows of canvases.

// The pixels around a mask that an operation may change.
export function reach(kind, amount) {
  return kind === "feather" ? Math.ceil(1.5 * amount) : amount;
}

export function changed(kind, alpha, width, height, amount) {
  return { grow, shrink, feather }[kind](alpha, width, height, amount);
}

// Grey dilation: the greatest value within `radius` pixels (Euclidean); beyond the edge there is nothing.
export function grow(alpha, width, height, radius) {
  const result = new Uint8Array(alpha.length);
  const row = new Uint8Array(width);
  const work = [0, 1, 2].map(() => new Uint8Array(width + 2 * radius + 1));
  for (let y = 0; y < height; y += 1) {
    const source = alpha.subarray(y * width, (y + 1) * width);
    if (!source.some(Boolean)) continue;
    for (let dy = 0; dy <= radius; dy += 1) {
      rowMaximum(source, row, Math.floor(Math.sqrt(radius * radius - dy * dy)), work);
      if (y - dy >= 0) raise(result, (y - dy) * width, row);
      if (dy && y + dy < height) raise(result, (y + dy) * width, row);
    }
  }
  return result;
}

// Grey erosion: the least value within `radius` pixels; the picture's edge takes nothing away.
export function shrink(alpha, width, height, radius) {
  return inverted(grow(inverted(alpha), width, height, radius));
}

// A Gaussian of standard deviation `amount / 2`, so that an edge spreads by about `amount` pixels to either side;
// pixels beyond the edge are as those at it.
export function feather(alpha, width, height, amount) {
  const kernel = gaussian(amount / 2);
  const across = blurred(Float32Array.from(alpha), height, width, width, 1, kernel);
  return Uint8Array.from(blurred(across, width, height, 1, width, kernel), Math.round);
}

export function inverted(alpha) {
  return alpha.map((value) => 255 - value);
}

// Running maximum over 2 * half + 1 values in three comparisons each (van Herk, 1992; Gil and Werman, 1993): of
// blocks as long as the window, `ahead` holds the maximum from their start, `behind` that to their end.
function rowMaximum(source, target, half, [padded, ahead, behind]) {
  const size = 2 * half + 1;
  const length = source.length + 2 * half;
  padded.fill(0, 0, length).set(source, half);
  for (let index = 0; index < length; index += 1) {
    const value = padded[index];
    ahead[index] = index % size && ahead[index - 1] > value ? ahead[index - 1] : value;
  }
  behind[length] = 0;
  for (let index = length - 1; index >= 0; index -= 1) {
    const value = padded[index];
    behind[index] = (index + 1) % size && behind[index + 1] > value ? behind[index + 1] : value;
  }
  for (let index = 0; index < source.length; index += 1) {
    const last = ahead[index + size - 1];
    target[index] = behind[index] > last ? behind[index] : last;
  }
}

function raise(result, start, row) {
  for (let x = 0; x < row.length; x += 1) if (row[x] > result[start + x]) result[start + x] = row[x];
}

// Weights from the middle outwards, to three standard deviations; both sides together sum to one.
function gaussian(sigma) {
  const weights = Array.from({ length: Math.ceil(3 * sigma) + 1 }, (_, x) => Math.exp(-x * x / (2 * sigma * sigma)));
  const sum = 2 * weights.reduce((total, weight) => total + weight, 0) - weights[0];
  return Float32Array.from(weights, (weight) => weight / sum);
}

// Lines of `length` values that lie `step` apart, each line `stride` behind the one before.
function blurred(source, lines, length, stride, step, kernel) {
  const result = new Float32Array(source.length);
  const reach = kernel.length - 1;
  const padded = new Float32Array(length + 2 * reach);
  for (let line = 0; line < lines; line += 1) {
    const start = line * stride;
    let varied = false;
    for (let at = 0; at < padded.length; at += 1) {
      padded[at] = source[start + Math.min(length - 1, Math.max(0, at - reach)) * step];
      varied ||= padded[at] !== padded[0];
    }
    for (let at = 0; at < length; at += 1) {
      result[start + at * step] = varied ? weighed(padded, at + reach, kernel) : padded[0];
    }
  }
  return result;
}

function weighed(values, at, kernel) {
  let sum = values[at] * kernel[0];
  for (let by = 1; by < kernel.length; by += 1) sum += (values[at - by] + values[at + by]) * kernel[by];
  return sum;
}
