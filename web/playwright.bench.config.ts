import config from "./playwright.config";

export default { ...config, testDir: "bench", timeout: 600_000 };
