export interface Part {
  name: string;
  colour: string;
  value: number;
}

interface Properties {
  label: string;
  parts: Part[];
  total: number; // what the whole width stands for
  text: (value: number) => string;
}

/// One bar of parts, with a legend that says each in numbers.
export function StackedBar({ label, parts, total, text }: Properties) {
  const there = parts.filter((part) => part.value > 0);
  return (
    <figure class="stacked">
      <div class="bar" role="img" aria-label={`${label}: ${there.map((p) => `${p.name} ${text(p.value)}`).join(", ")}`}>
        {there.map((part) => (
          <Piece key={part.name} colour={part.colour} share={part.value / total} />
        ))}
      </div>
      <figcaption>
        {there.map((part) => (
          <span key={part.name} class="key">
            <Swatch colour={part.colour} /> {part.name} {text(part.value)}
          </span>
        ))}
      </figcaption>
    </figure>
  );
}

export function Swatch({ colour }: { colour: string }) {
  return <i class="swatch" aria-hidden="true" style={{ background: colour }} />;
}

export function Piece({ colour, share }: { colour: string; share: number }) {
  return <span class="piece" style={{ background: colour, width: `${Math.max(0, share) * 100}%` }} />;
}
