import { defineConfig } from "vite";

// Three files of fixed names, that launch's build puts into the binary: launcher/rest/embedded.h.
export default defineConfig({
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: false,
    rollupOptions: {
      output: { entryFileNames: "page.js", assetFileNames: "page[extname]", inlineDynamicImports: true },
    },
  },
  // `npx vite` beside a running `launch serve --name localhost:5173`, for whoever works on the page.
  server: { proxy: { "/v1": "http://127.0.0.1:8080" } },
});
