// Lines over steps, with their ends in numbers.
export interface Line {
  name: string;
  colour: string;
  points: [number, number][]; // by step
}

const kWidth = 560;
const kHeight = 220;
const kLeft = 64;
const kBottom = 24;
const kMostPoints = 1000;

interface Properties {
  title: string;
  lines: Line[];
  text: (value: number) => string;
}

export function Curve({ title, lines, text }: Properties) {
  const points = lines.flatMap((line) => line.points);
  if (points.length === 0) return null;
  const steps = points.map(([step]) => step);
  const values = points.map(([, value]) => value).sort((a, b) => a - b);
  const first = Math.min(...steps.slice(0, 1), ...lines.map((line) => line.points[0]?.[0] ?? Infinity));
  const last = Math.max(...lines.map((line) => line.points.at(-1)?.[0] ?? -Infinity));
  // One step that took a hundred times as long may not flatten all others.
  const top = values[Math.ceil((values.length - 1) * 0.98)]! * 1.05;
  const bottom = Math.min(0, values[0]!);
  const x_of = (step: number) => kLeft + ((step - first) / Math.max(1, last - first)) * (kWidth - kLeft - 8);
  const y_of = (value: number) =>
    kHeight - kBottom - ((Math.min(value, top) - bottom) / (top - bottom || 1)) * (kHeight - kBottom - 10);
  return (
    <figure>
      <figcaption>{title}</figcaption>
      <svg viewBox={`0 0 ${kWidth} ${kHeight}`} role="img" aria-label={`${title}, steps ${first} to ${last}`}>
        {[bottom, (top + bottom) / 2, top].map((value) => (
          <g key={value}>
            <line class="grid" x1={kLeft} x2={kWidth} y1={y_of(value)} y2={y_of(value)} />
            <text x={kLeft - 6} y={y_of(value) + 4} text-anchor="end">
              {text(value)}
            </text>
          </g>
        ))}
        <text x={kLeft} y={kHeight - 6}>
          step {first}
        </text>
        <text x={kWidth - 8} y={kHeight - 6} text-anchor="end">
          {last}
        </text>
        {lines.map((line) => {
          const every = Math.max(1, Math.ceil(line.points.length / kMostPoints));
          const drawn = line.points.filter((_, index) => index % every === 0);
          return (
            <polyline
              key={line.name}
              fill="none"
              stroke={line.colour}
              stroke-width={1.5}
              points={drawn.map(([step, value]) => `${x_of(step).toFixed(1)},${y_of(value).toFixed(1)}`).join(" ")}
            />
          );
        })}
      </svg>
      {lines.length > 1 && (
        <p class="legend">
          {lines.map((line) => (
            <span key={line.name} class="key">
              <i class="swatch" aria-hidden="true" style={{ background: line.colour }} /> {line.name}
            </span>
          ))}
        </p>
      )}
    </figure>
  );
}
