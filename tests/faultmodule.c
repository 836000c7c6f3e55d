/* A PKCS#11 module that passes everything on to a real one, and fails when it is told to.
 *
 * FAULT_MODULE: path of the real module.  FAULT_DIR: a directory; a file in it that is named after a fault makes the next use of
 * a key fail that way, once, and is taken away.  Logins are counted in FAULT_DIR/logins, a byte each.
 * The fault "point" makes the next reading of a public key fail instead.
 * FAULT_NO_LOCKING: refuse CKF_OS_LOCKING_OK, as modules without mutexes do.
 * FAULT_OWN_NONCE: encrypt with another nonce than the caller's, written over the caller's, as some HSMs do with AES-GCM.
 * FAULT_NO_SESSION_KEYS: make no key whose CKA_TOKEN is false, as some HSMs do.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long CK_ULONG;
typedef CK_ULONG (*function)();
typedef struct { unsigned char version[2]; function functions[68]; } function_list;
typedef struct { void *mutexes[4]; CK_ULONG flags; void *reserved; } initialize_arguments;
typedef struct { CK_ULONG kind; void *parameter; CK_ULONG length; } mechanism;
typedef struct { CK_ULONG kind; void *value; CK_ULONG length; } attribute;

enum { INITIALIZE = 0, FINALIZE = 1, GET_FUNCTION_LIST = 3, CLOSE_ALL = 14, SESSION_INFO = 15, LOGIN = 18, LOGOUT = 19,
       GET_ATTRIBUTE_VALUE = 24, ENCRYPT_INIT = 29, DECRYPT_INIT = 33, SIGN_INIT = 42, GENERATE_KEY = 58, GENERATE_KEY_PAIR = 59 };
enum { CKR_OK = 0, CKR_CANT_LOCK = 0x0a, CKR_ATTRIBUTE_VALUE_INVALID = 0x13, CKR_DEVICE_ERROR = 0x30, CKR_DEVICE_REMOVED = 0x32,
       CKF_OS_LOCKING_OK = 2, CKM_AES_GCM = 0x1087, CKA_TOKEN = 1, CKA_EC_POINT = 0x181 };

static function_list list;
static function_list *real;

static int told(const char *fault) {
    char from[4096], to[4096];
    const char *directory = getenv("FAULT_DIR");
    if (directory == NULL) return 0;
    snprintf(from, sizeof from, "%s/%s", directory, fault);
    if (access(from, F_OK) != 0) return 0;
    snprintf(to, sizeof to, "%s.done", from);
    return rename(from, to) == 0;
}

static CK_ULONG fail(CK_ULONG session) {
    if (told("removed")) return CKR_DEVICE_REMOVED;
    if (told("error")) return CKR_DEVICE_ERROR;
    if (told("crash")) abort();
    if (told("hang")) for (;;) pause();
    if (told("logout")) real->functions[LOGOUT](session);
    if (told("close")) {
        CK_ULONG info[5];
        if (real->functions[SESSION_INFO](session, info) == CKR_OK) real->functions[CLOSE_ALL](info[0]);
    }
    return CKR_OK;
}

static CK_ULONG encrypt_init(CK_ULONG session, mechanism *how, CK_ULONG key) {
    CK_ULONG result = fail(session);
    if (result != CKR_OK) return result;
    if (getenv("FAULT_OWN_NONCE") != NULL && how->kind == CKM_AES_GCM) **(unsigned char **)how->parameter ^= 0x55;
    return real->functions[ENCRYPT_INIT](session, how, key);
}

static int is_session_key(attribute *template, CK_ULONG count) {
    for (CK_ULONG at = 0; getenv("FAULT_NO_SESSION_KEYS") != NULL && at < count; at++)
        if (template[at].kind == CKA_TOKEN && *(unsigned char *)template[at].value == 0) return 1;
    return 0;
}

static CK_ULONG generate_key(CK_ULONG session, void *how, attribute *template, CK_ULONG count, CK_ULONG *key) {
    if (is_session_key(template, count)) return CKR_ATTRIBUTE_VALUE_INVALID;
    return real->functions[GENERATE_KEY](session, how, template, count, key);
}

static CK_ULONG generate_key_pair(CK_ULONG session, void *how, attribute *public, CK_ULONG publics, attribute *private,
                                  CK_ULONG privates, CK_ULONG *public_key, CK_ULONG *private_key) {
    if (is_session_key(private, privates)) return CKR_ATTRIBUTE_VALUE_INVALID;
    return real->functions[GENERATE_KEY_PAIR](session, how, public, publics, private, privates, public_key, private_key);
}

static CK_ULONG get_attribute_value(CK_ULONG session, CK_ULONG object, attribute *template, CK_ULONG count) {
    if (count > 0 && template[0].kind == CKA_EC_POINT && told("point")) return CKR_DEVICE_ERROR;
    return real->functions[GET_ATTRIBUTE_VALUE](session, object, template, count);
}

#define USE(name, index) \
    static CK_ULONG name(CK_ULONG session, void *how, CK_ULONG key) { \
        CK_ULONG result = fail(session); \
        return result != CKR_OK ? result : real->functions[index](session, how, key); \
    }
USE(decrypt_init, DECRYPT_INIT)
USE(sign_init, SIGN_INIT)

static CK_ULONG login(CK_ULONG session, CK_ULONG user, void *pin, CK_ULONG length) {
    char path[4096];
    snprintf(path, sizeof path, "%s/logins", getenv("FAULT_DIR"));
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (file >= 0) {
        if (write(file, ".", 1) != 1) abort();
        close(file);
    }
    return real->functions[LOGIN](session, user, pin, length);
}

CK_ULONG C_GetFunctionList(function_list **out) {
    if (real == NULL) {
        void *module = dlopen(getenv("FAULT_MODULE"), RTLD_NOW | RTLD_LOCAL);
        if (module == NULL) return CKR_DEVICE_ERROR;
        CK_ULONG (*get)(function_list **) = (CK_ULONG (*)(function_list **))dlsym(module, "C_GetFunctionList");
        if (get == NULL || get(&real) != CKR_OK) return CKR_DEVICE_ERROR;
        memcpy(&list, real, sizeof list);
        list.functions[INITIALIZE] = NULL;
    }
    if (list.functions[INITIALIZE] == NULL) {
        extern CK_ULONG C_Initialize(initialize_arguments *);
        list.functions[INITIALIZE] = (function)C_Initialize;
        list.functions[GET_FUNCTION_LIST] = (function)C_GetFunctionList;
        list.functions[LOGIN] = (function)login;
        list.functions[GET_ATTRIBUTE_VALUE] = (function)get_attribute_value;
        list.functions[ENCRYPT_INIT] = (function)encrypt_init;
        list.functions[DECRYPT_INIT] = (function)decrypt_init;
        list.functions[SIGN_INIT] = (function)sign_init;
        list.functions[GENERATE_KEY] = (function)generate_key;
        list.functions[GENERATE_KEY_PAIR] = (function)generate_key_pair;
    }
    *out = &list;
    return CKR_OK;
}

CK_ULONG C_Initialize(initialize_arguments *arguments) {
    function_list *ours;
    if (C_GetFunctionList(&ours) != CKR_OK) return CKR_DEVICE_ERROR;
    if (getenv("FAULT_NO_LOCKING") != NULL && arguments != NULL && (arguments->flags & CKF_OS_LOCKING_OK)) return CKR_CANT_LOCK;
    return real->functions[INITIALIZE](arguments);
}

CK_ULONG C_Finalize(void *reserved) { return real->functions[FINALIZE](reserved); }
