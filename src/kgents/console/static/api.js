// Requests with the key of this tab.
const KEY = "kgents-key";

export const key = {
  get: () => sessionStorage.getItem(KEY),
  keep: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

// An answer that is no success, with what the API says of it.
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export const ANSWER = 10_000; // milliseconds

export async function request(method, path, body, signal) {
  const response = await fetch(path, {
    method,
    signal,
    body: body === undefined ? undefined : JSON.stringify(body),
    headers: { Authorization: `Bearer ${key.get()}`, "Content-Type": "application/json" },
  });
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    const said = problem.detail || problem.error?.message || `The API answered ${response.status}.`;
    throw new Refused(said, response.status);
  }
  return response;
}

export const get = async (path) => (await request("GET", path, undefined, AbortSignal.timeout(ANSWER))).json();

// The object at a path, or null where there is none.
export async function find(path) {
  try {
    return await get(path);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}
