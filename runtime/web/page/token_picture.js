/** Tokens as a picture: one column for each frame, one row for each level, one hue for each code. */

/** @import { Tokens } from "../src/tokens.js" */

/**
 * Draw tokens; levels from `nQ` on are drawn pale.
 * @param {HTMLCanvasElement} canvas
 * @param {Tokens} tokens
 * @param {number} nQ levels that are heard
 */
export function drawTokens(canvas, tokens, nQ) {
  const columns = Math.min(tokens.numFrames, 1200);
  [canvas.width, canvas.height] = [columns, tokens.nQ];
  canvas.style.imageRendering = "pixelated";
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  for (let level = 0; level < tokens.nQ; level++) {
    const codes = tokens.level(level);
    for (let column = 0; column < columns; column++) {
      const code = codes[Math.floor((column * tokens.numFrames) / columns)];
      const hue = (code * 360) / tokens.codebookSize;
      const lightness = 40 + ((code * 7) % 30);
      context.fillStyle = `hsl(${hue} ${level < nQ ? 75 : 10}% ${level < nQ ? lightness : 25}%)`;
      context.fillRect(column, level, 1, 1);
    }
  }
}
