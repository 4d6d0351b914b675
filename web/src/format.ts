// Numbers for people: three figures, with the unit that fits.

function three(value: number): string {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return value.toFixed(digits);
}

export function seconds(value: number): string {
  if (value === 0) return "0 s";
  if (value >= 120) return `${three(value / 60)} min`;
  if (value >= 1) return `${three(value)} s`;
  if (value >= 1e-3) return `${three(value * 1e3)} ms`;
  return `${three(value * 1e6)} us`;
}

const kBytes: [number, string][] = [
  [1e12, "TB"],
  [1e9, "GB"],
  [1e6, "MB"],
  [1e3, "kB"],
];

export function bytes(value: number): string {
  for (const [unit, name] of kBytes) if (value >= unit) return `${three(value / unit)} ${name}`;
  return `${value} B`;
}

export function percent(fraction: number): string {
  return `${(fraction * 100).toFixed(1)} %`;
}

export function count(value: number): string {
  if (value >= 1e9) return `${three(value / 1e9)} billion`;
  if (value >= 1e6) return `${three(value / 1e6)} million`;
  return Math.round(value).toLocaleString("en");
}

export function usd(value: number): string {
  return value >= 1 ? `$${value.toFixed(2)}` : `$${value.toPrecision(3)}`;
}

/// "0-3, 8, 12-15"
export function ranges(numbers: number[]): string {
  const parts: string[] = [];
  for (let i = 0; i < numbers.length; ) {
    let end = i;
    while (end + 1 < numbers.length && numbers[end + 1] === numbers[end]! + 1) ++end;
    parts.push(end === i ? `${numbers[i]}` : `${numbers[i]}-${numbers[end]}`);
    i = end + 1;
  }
  return parts.join(", ");
}

/// "+12.3 %" of `other` beside `ours`.
export function difference(other: number, ours: number): string {
  const percents = (other / ours - 1) * 100;
  return `${percents >= 0 ? "+" : "-"}${Math.abs(percents).toFixed(1)} %`;
}
