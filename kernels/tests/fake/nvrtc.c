/* A compiler that compiles nothing, for tests: it only tells what it could. */
#ifndef MAJOR
#define MAJOR 12
#endif
static const int architectures[] = {70, 75, 80, 86, 89, 90, 100, 120};
int nvrtcVersion(int* major, int* minor) { *major = MAJOR; *minor = 9; return 0; }
int nvrtcGetNumSupportedArchs(int* count) { *count = 8; return 0; }
int nvrtcGetSupportedArchs(int* to) { for (int i = 0; i < 8; i++) to[i] = architectures[i]; return 0; }
int nvrtcCreateProgram(void) { return 11; }
int nvrtcCompileProgram(void) { return 11; }
int nvrtcGetProgramLogSize(void) { return 11; }
int nvrtcGetProgramLog(void) { return 11; }
int nvrtcGetCUBINSize(void) { return 11; }
int nvrtcGetCUBIN(void) { return 11; }
int nvrtcDestroyProgram(void) { return 11; }
