/** What stops a start and the user can mend: shown as one line, without a stack. */
export class StartError extends Error {}
